"""Rendering of templated fields with Jinja, in a sandbox (S64-S68).

jinja2 is imported when the first text that really is a template is met: a DAG without
templates does not pay for it. The worker's template process calls :func:`prewarm` once instead.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from roost.dag.files import read_template
from roost.dag.param import DagParam, defaults
from roost.dag.past import Context
from roost.dag.python import prewarm_function
from roost.dag.xcom_arg import XComArg
from roost.exceptions import RoostException, TemplateError

if TYPE_CHECKING:
    from roost.dag.definition import DAG
    from roost.dag.operator import BaseOperator
    from roost.dag.sandbox import Environment

__all__ = ["Renderer", "environment", "is_template", "prewarm", "render_template_fields"]

_MARKS = ("{{", "{%", "{#")
_SHOWN = 100  # characters of a template in an error
_ATOMS = (int, float, bool, bytes, type(None))
_environments: WeakKeyDictionary[DAG, Environment] = WeakKeyDictionary()


def is_template(text: str) -> bool:
    """Whether Jinja would change ``text``."""
    return any(mark in text for mark in _MARKS)


def environment(dag: DAG) -> Environment:
    """The Jinja environment of ``dag``, made on first use."""
    found = _environments.get(dag)
    if found is None:
        # Imported late: jinja2 costs as much to import as all of roost.dag.
        from roost.dag.sandbox import make_environment

        found = _environments[dag] = make_environment(dag)
    return found


def prewarm(dag: DAG) -> None:
    """Do once what all tasks of ``dag`` need, before they are forked.

    Import jinja2, if there is a template, and compile plain template texts (errors come when they
    are rendered); look at the parameters of Python functions and at params.
    """
    defaults(dag.params)
    for task in dag.tasks:
        defaults(task.params)
        prewarm_function(getattr(task, "python_callable", None))
        for name in task.template_fields:
            value = getattr(task, name, None)
            if isinstance(value, str) and is_template(value):
                environment(dag).compiled(value, quiet=True)


def render_template_fields(task: BaseOperator, context: dict[str, Any]) -> None:
    """Replace the templated fields of ``task`` by their values in ``context``.

    ``task`` itself is changed (give it a copy of the task); objects inside its fields are not,
    they are replaced by rendered copies (S66).

    Raises:
        RoostException: a field does not exist, or a template is wrong; the message names it.
    """
    renderer = Renderer(task, context, task.verbatim)
    for name in task.template_fields:
        if not hasattr(task, name):
            raise RoostException(
                f"task {task.task_id!r}: template_fields names {name!r}, which the task does "
                "not have"
            )
        setattr(task, name, renderer.field(name, getattr(task, name)))


class Renderer:
    """Renders values for one task and context.

    Args:
        task: whose templates they are.
        context: their names.
        verbatim: values that are given as they are, by identity.
    """

    def __init__(
        self, task: BaseOperator, context: dict[str, Any], verbatim: Sequence[Any] = ()
    ) -> None:
        self._task = task
        self._context = context
        # Copies made so far by identity of the original: shared objects stay shared and cycles
        # end (S66). The originals are kept alive, so that no identity is used twice.
        self._copies: dict[int, tuple[object, object]] = {}
        # What is being rendered, for an error.
        self._source, self._file = "", ""
        self._verbatim = {id(value): value for value in verbatim}

    def field(self, name: str, value: Any) -> Any:
        """``value`` rendered; an error names the field."""
        try:
            return self.render(value)
        except RoostException:
            raise
        except Exception as error:
            message = " ".join(str(error).split())
            raise TemplateError(
                f"task {self._task.task_id!r}: template of {name!r} failed: "
                f"{type(error).__name__}: {message}{self._place(error)}"
            ) from error

    def _place(self, error: Exception) -> str:
        """The text or file whose template failed, and the line of it."""
        line = getattr(error, "lineno", None)
        trace = error.__traceback__
        while trace is not None:
            if "__jinja_exception__" in trace.tb_frame.f_globals:
                line = trace.tb_lineno
            trace = trace.tb_next
        if line is None:
            return ""
        shown = self._file or repr(self._source[:_SHOWN])
        return f" (line {line} of {shown})"

    def render(self, value: Any) -> Any:
        """``value`` with every template in it rendered; what holds none is returned as it is."""
        if isinstance(value, XComArg | DagParam):
            return value.resolve(self._context)
        if id(value) in self._verbatim:
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, _ATOMS):
            return value
        known = self._copies.get(id(value))
        return known[1] if known is not None else self._inner(value)

    def _inner(self, value: Any) -> Any:
        # Exact types only: a subclass may not be made from a plain sequence of its items.
        kind = type(value)
        if kind is list:
            made: list[Any] = []
            self._copies[id(value)] = (value, made)
            made.extend(self.render(item) for item in value)
            return made
        if kind is dict:
            made_dict: dict[Any, Any] = {}
            self._copies[id(value)] = (value, made_dict)
            made_dict.update((key, self.render(item)) for key, item in value.items())
            return made_dict
        if kind in (tuple, set, frozenset):
            return kind(self.render(item) for item in value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return kind(*(self.render(item) for item in value))
        return self._object(value)

    def _object(self, value: Any) -> Any:
        """An object with template_fields of its own; another one is left alone (S66)."""
        fields = getattr(value, "template_fields", None)
        if not isinstance(fields, list | tuple | set | frozenset) or isinstance(value, type):
            return value
        made = copy.copy(value)
        self._copies[id(value)] = (value, made)
        for name in fields:
            setattr(made, name, self.render(getattr(value, name)))
        return made

    def _text(self, text: str) -> Any:
        suffixes = tuple(self._task.template_ext)
        file = ""
        if suffixes and text.endswith(suffixes) and not is_template(text):
            content = read_template(self._task.dag, text)
            if content is None:
                return text
            text, file = content, text
        if not is_template(text):
            return text
        self._source, self._file = text, file
        context = (
            self._context.for_text(text) if isinstance(self._context, Context) else self._context
        )
        made = environment(self._task.dag).compiled(text, name=file or None)
        return made.render(context)
