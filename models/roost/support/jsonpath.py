"""One place in a JSON value: ``jobs[0].state``, ``$['a name'].rows``, ``items[-1]``.

A small part of JSONPath: names and indexes, no wildcards, slices or filters. A name that is not of
letters, digits, ``_`` or ``-`` stands in ``['…']``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from roost.exceptions import RoostException

__all__ = ["MISSING", "check_path", "value_at"]

MISSING: Final = object()
"""What :func:`value_at` gives where there is nothing."""

_STEP = re.compile(
    r"""(?:\.|^)(?P<name>[\w-]+)|\[(?P<index>-?\d+)\]|\['(?P<single>[^']*)'\]|\["(?P<double>[^"]*)"\]"""
)


def check_path(path: object) -> str:
    """The path, if it is one.

    Raises:
        RoostException: it is not.
    """
    if not isinstance(path, str):
        raise RoostException(f"json_path must be a text, not {path!r}")
    list(_steps(path))
    return path


def value_at(value: Any, path: str) -> Any:
    """What stands at ``path``; MISSING where there is nothing.

    Raises:
        RoostException: it is no path.
    """
    for step in _steps(path):
        if isinstance(step, int):
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                return MISSING
            value = value[step]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return MISSING
    return value


def _steps(path: str) -> Iterator[str | int]:
    rest, place = path.removeprefix("$"), 0
    while place < len(rest):
        found = _STEP.match(rest, place)
        if found is None or (found["name"] and path[:1] == "$" and rest[place] != "."):
            raise RoostException(
                f"json_path {path!r} cannot be read from {rest[place:][:40]!r} on; write it like "
                "jobs[0].state or ['a name'].rows"
            )
        place = found.end()
        if found["index"] is not None:
            yield int(found["index"])
        else:
            yield next(part for part in found.group("name", "single", "double") if part is not None)
