"""What of a DAG is kept for people: its documentation and arguments (S69)."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from roost.dag.files import read_template

if TYPE_CHECKING:
    from roost.dag.definition import DAG

__all__ = ["doc_md", "shown"]


def doc_md(dag: DAG) -> str | None:
    """The Markdown documentation; a name that ends in ``.md`` stands for a file's text."""
    text = dag.doc_md
    if text is None or not text.endswith(".md") or "\n" in text:
        return text
    found = read_template(dag, text)
    return text if found is None else found


def shown(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as plain JSON, to be looked at: what is none becomes its text."""
    return {name: _plain(value) for name, value in arguments.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, date | timedelta | PurePath):
        return str(value)
    # Its text may differ from process to process, and would make a new version each time.
    return getattr(value, "__qualname__", type(value).__qualname__)
