"""The reference part of docs/operators.md, made from the docstrings of the classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import roost.hooks
import roost.operators
import roost.sensors

__all__ = ["operator_reference", "public_classes"]

_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")
_ROWS = re.compile(r" \([SDH]\d+(?:[-, ]+[SDH]?\d+)*\)")
_ARGUMENT = re.compile(r"([\w*]+(?:, \w+)*): (.*)")


def public_classes() -> Iterator[tuple[str, str, type]]:
    """Package, name and class of everything that DAG files may import from the three packages."""
    for package in (roost.operators, roost.sensors, roost.hooks):
        for name in sorted(package.__all__, key=str.lower):
            found = getattr(package, name)
            # What all tasks have in common is docs/authoring.md's part.
            if inspect.isclass(found) and found is not roost.operators.BaseOperator:
                yield package.__name__, name, found


def operator_reference() -> str:
    """A section for each class: what it is for, and its arguments."""
    return "\n".join(part for entry in public_classes() for part in _section(*entry))


def _section(package: str, name: str, kind: type) -> Iterator[str]:
    yield f"### `{package}.{name}`\n"
    if kind.__name__ != name:
        yield f"The same as `{kind.__name__}`.\n"
        return
    text, _, rest = inspect.cleandoc(kind.__doc__ or "").partition("\nArgs:\n")
    text = text.partition("\nRaises:\n")[0]
    yield _markdown(text).strip() + "\n"
    rows = [f"| `{argument}` | {said} |" for argument, said in _arguments(rest)]
    if rows:
        yield "\n".join(["| argument | meaning |", "|---|---|", *rows]) + "\n"


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    """Names and meanings of an ``Args:`` section, without the reference to the base class."""
    entries: list[str] = []
    for line in text.partition("\nRaises:\n")[0].splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            entries.append(line.strip())
        elif entries and line.strip():
            entries[-1] += " " + line.strip()
    for entry in entries:
        found = _ARGUMENT.fullmatch(entry)
        assert found, entry
        name, said = found.groups()
        shown = "others" if name == "**kwargs" else name
        yield shown, _markdown(said).replace("|", "\\|")


def _markdown(text: str) -> str:
    return _ROWS.sub("", _ROLE.sub(r"`\1`", text).replace("``", "`"))
