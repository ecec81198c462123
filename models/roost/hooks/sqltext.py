"""Taking SQL text apart at its semicolons."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["statements"]

# What hides a semicolon: quoted text and names, comments, PostgreSQL's dollar quotes.
_HIDING = re.compile(
    r"'(?:[^']|'')*'"
    r'|"(?:[^"]|"")*"'
    r"|`[^`]*`"
    r"|--[^\n]*"
    r"|/\*.*?\*/"
    r"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$",
    re.DOTALL,
)


def statements(text: str) -> list[str]:
    """The statements of ``text``, without their semicolons; comments alone are none.

    A body between BEGIN and END that holds semicolons, as of a trigger in SQLite, is not known:
    give such statements as a list.
    """
    return [piece for piece in _pieces(text) if _HIDING.sub(_kept, piece).strip()]


def _pieces(text: str) -> Iterator[str]:
    start = place = 0
    while place < len(text):
        hidden = _HIDING.match(text, place)
        if hidden:
            place = hidden.end()
            continue
        if text[place] == ";":
            yield text[start:place].strip()
            start = place + 1
        place += 1
    yield text[start:].strip()


def _kept(match: re.Match[str]) -> str:
    """Nothing of a comment, all of what is quoted."""
    found = match.group()
    return "" if found.startswith(("--", "/*")) else found
