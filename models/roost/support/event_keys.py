"""Keys of events from outside: what a task may wait for, and somebody may send."""

from __future__ import annotations

from typing import Final

from roost.exceptions import RoostException

__all__ = ["MAX_KEY", "RESERVED", "check_key"]

MAX_KEY: Final = 250
RESERVED: Final = "roost:"
"""Keys that begin so are Roost's own: waits for runs, which the scheduler ends."""


def check_key(key: object) -> str:
    """``key``, if it can be one.

    Raises:
        RoostException: it is no text of 1 to 250 printable characters, or begins with ``roost:``.
    """
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not key.isprintable():
        shown = repr(key) if len(repr(key)) < 100 else f"{repr(key)[:100]}…"
        if isinstance(key, str) and len(key) > MAX_KEY:
            shown = f"{len(key)}: {shown}"
        raise RoostException(
            f"the key of an event has 1 to {MAX_KEY} printable characters, not {shown}"
        )
    if key.startswith(RESERVED):
        raise RoostException(f"keys that begin with {RESERVED!r} are Roost's own; not {key!r}")
    return key
