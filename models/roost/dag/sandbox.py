"""The Jinja environment of a DAG: sandboxed, strict about undefined names (S68)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.nativetypes import NativeEnvironment, NativeTemplate, native_concat
from jinja2.sandbox import ImmutableSandboxedEnvironment

from roost.dag import macros
from roost.dag.files import read_packed

if TYPE_CHECKING:
    from roost.dag.definition import DAG

__all__ = ["Environment", "make_environment"]


MAX_RENDERED = 16 << 20
"""Most characters that one template may yield."""


def _bounded(parts: Iterable[Any]) -> Iterator[Any]:
    """``parts`` as they come, until they are too much: a loop without end has one then."""
    left = MAX_RENDERED
    for part in parts:
        if isinstance(part, str):
            left -= len(part)
            if left < 0:
                raise _too_large()
        yield part


def _too_large() -> SecurityError:
    return SecurityError(f"it yields more than {MAX_RENDERED >> 20} MiB; write a file instead")


class _Text(ImmutableSandboxedEnvironment):
    """Templates yield text. Compiled ones are kept: tasks of a DAG often share their texts."""

    intercepted_binops = frozenset({"*", "**"})

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """The parts of a rendered text, put together."""
        return "".join(_bounded(parts))

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """An operation that could fill the memory with a few characters."""
        if operator == "*":
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            known = hasattr(sized, "__len__") and isinstance(times, int)
            size = len(sized) * times if known else 0
        else:
            known = isinstance(left, int) and isinstance(right, int)
            size = left.bit_length() * right if known else 0
        if size > MAX_RENDERED:
            raise _too_large()
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Also refuses the modules that a module has imported: the way to os and open."""
        if isinstance(value, ModuleType) and obj is not macros:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._texts: dict[str, Any] = {}

    def compiled(self, text: str, quiet: bool = False, name: str | None = None) -> jinja2.Template:
        """``text`` as a template.

        Args:
            text: the source.
            name: of the file that it comes from.
            quiet: ignore a syntax error, the one who renders it will meet it.
        """
        if text not in self._texts:
            try:
                self._texts[text] = self._template(text, name)
            except jinja2.TemplateSyntaxError:
                if not quiet:
                    raise
                return self.from_string("")
        found: jinja2.Template = self._texts[text]
        return found

    def _template(self, text: str, name: str | None) -> jinja2.Template:
        if name is None:
            return self.from_string(text)
        code = self.compile(text, name, name)
        return self.template_class.from_code(self, code, self.make_globals(None))


class _Native(_Text, NativeEnvironment):
    """Templates of one expression yield its Python value."""

    @staticmethod
    def concat(parts: Iterable[Any]) -> Any:
        """The value of one expression, or the text of several parts."""
        return native_concat(_bounded(parts))


class _NativeTemplate(NativeTemplate):
    # It calls the concat() of this class, not that of its environment.
    environment_class = _Native  # type: ignore[assignment]


_Native.template_class = _NativeTemplate

Environment: TypeAlias = _Text


def make_environment(dag: DAG) -> Environment:
    """The environment that the templates of ``dag`` are rendered in."""
    options: dict[str, Any] = {
        "undefined": dag.template_undefined or jinja2.StrictUndefined,
        "extensions": ["jinja2.ext.do"],
        "loader": jinja2.ChoiceLoader(
            [
                jinja2.FunctionLoader(partial(read_packed, dag)),
                jinja2.FileSystemLoader([dag.folder, *dag.template_searchpath]),
            ]
        ),
        "cache_size": 0,
        **dag.jinja_environment_kwargs,
    }
    kind = _Native if dag.render_template_as_native_obj else _Text
    made = kind(**options)
    made.filters.update(_FILTERS)
    made.filters.update(dag.user_defined_filters)
    made.globals.update(dag.user_defined_macros)
    return made


def _ds(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def _ds_nodash(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def _ts(moment: datetime) -> str:
    return moment.isoformat()


def _ts_nodash(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S")


def _ts_nodash_with_tz(moment: datetime) -> str:
    return moment.isoformat().replace("-", "", 2).replace(":", "")


_FILTERS = {
    "ds": _ds,
    "ds_nodash": _ds_nodash,
    "ts": _ts,
    "ts_nodash": _ts_nodash,
    "ts_nodash_with_tz": _ts_nodash_with_tz,
}
