"""The Jinja environment of a DAG: sandboxed, strict about undefined names (S68)."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import jinja2
from jinja2.nativetypes import NativeEnvironment, NativeTemplate
from jinja2.sandbox import ImmutableSandboxedEnvironment

from roost.dag.files import read_packed

if TYPE_CHECKING:
    from roost.dag.definition import DAG

__all__ = ["Environment", "make_environment"]


class _Text(ImmutableSandboxedEnvironment):
    """Templates yield text. Compiled ones are kept: tasks of a DAG often share their texts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._texts: dict[str, Any] = {}

    def compiled(self, text: str, quiet: bool = False) -> jinja2.Template:
        """``text`` as a template.

        Args:
            text: the source.
            quiet: ignore a syntax error, the one who renders it will meet it.
        """
        if text not in self._texts:
            try:
                self._texts[text] = self.from_string(text)
            except jinja2.TemplateSyntaxError:
                if not quiet:
                    raise
                return self.from_string("")
        found: jinja2.Template = self._texts[text]
        return found


class _Native(_Text, NativeEnvironment):
    """Templates of one expression yield its Python value."""

    template_class = NativeTemplate


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
