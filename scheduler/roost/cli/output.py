"""Printing rows: ``-o table|json|yaml|plain``, the same rows and names in each.

JSON is an array of objects, a moment an ISO 8601 text in UTC, what is absent ``null``. YAML is
the same data (every JSON scalar is a YAML scalar). ``plain`` is a header and tab-separated rows.

Rows are printed as they come, a thousand at a time, so a listing of a million needs no memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import click
import msgspec

from roost.support.clock import from_us

__all__ = ["STATE_COLORS", "emit", "iso", "output_option", "paint"]

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]
_AT_ONCE = 1000
STATE_COLORS = {
    "success": "green",
    "running": "cyan",
    "queued": "blue",
    "scheduled": "blue",
    "deferred": "magenta",
    "failed": "red",
    "upstream_failed": "red",
    "up_for_retry": "yellow",
    "skipped": "bright_black",
}


def output_option(command: F) -> F:
    """Add ``-o`` to a command, as its argument ``output``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml", "plain"]),
        default="table",
        show_default=True,
        help="Output format.",
    )(command)


def iso(us: int | None) -> str | None:
    """A moment of the database as ISO 8601 in UTC."""
    return None if us is None else from_us(us).isoformat()


def paint(state: str, text: str | None = None) -> str:
    """A state, or another text, in the state's colour; the terminal decides whether it shows."""
    return click.style(state if text is None else text, fg=STATE_COLORS.get(state))


def emit(rows: Iterable[Row], columns: Sequence[str], output: str) -> None:
    """Print rows, however many. Every row has exactly the given columns."""
    picked = ({name: row[name] for name in columns} for row in rows)
    lines: Iterator[str]
    if output == "json":
        lines = _json(picked)
    elif output == "yaml":
        lines = _yaml(picked)
    elif output == "plain":
        flat = ("\t".join(_flat(value) for value in row.values()) for row in picked)
        lines = chain(["\t".join(columns)], flat)
    else:
        lines = _table(picked, columns)
    while some := list(islice(lines, _AT_ONCE)):
        click.echo("\n".join(some))


def _json(rows: Iterable[Row]) -> Iterator[str]:
    """One array, as if it had been formatted as a whole."""
    before = "["
    for row in rows:
        yield before
        text = msgspec.json.format(msgspec.json.encode(row), indent=2).decode()
        before = "  " + text.replace("\n", "\n  ") + ","
    yield "[]" if before == "[" else f"{before[:-1]}\n]"


def _yaml(rows: Iterable[Row]) -> Iterator[str]:
    empty = True
    for row in rows:
        empty = False
        for at, (name, value) in enumerate(row.items()):
            scalar = msgspec.json.encode(value).decode()
            yield f"{'  ' if at else '- '}{name}: {scalar}"
    if empty:
        yield "[]"


def _text(value: object) -> str:
    """A value for people: nothing for what is absent."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _flat(value: object) -> str:
    return _text(value).replace("\t", " ").replace("\n", " ")


def _table(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """Columns as wide as their widest value; a text of several lines keeps its lines.

    Of very many rows the first say how wide; what is wider further down juts out.
    """
    cells = ([_text(row[name]).splitlines() or [""] for name in columns] for row in rows)
    first = list(islice(cells, _AT_ONCE))
    if not first:
        click.echo("No rows.", err=True)
        return
    widths = [
        max(len(name), *(len(line) for row in first for line in row[at]))
        for at, name in enumerate(columns)
    ]
    yield _line(columns, widths)
    yield "-+-".join("-" * width for width in widths)
    for row in chain(first, cells):
        for at in range(max(map(len, row))):
            yield _line([lines[at] if at < len(lines) else "" for lines in row], widths, columns)


def _line(cells: Sequence[str], widths: Sequence[int], names: Sequence[str] = ()) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    if sys.stdout.isatty():
        for at, name in enumerate(names):
            if name == "state":
                padded[at] = paint(cells[at], padded[at])
    return " | ".join(padded).rstrip()
