"""Which line of a stack is the user's: what blocks is named by it, not by the library it called."""

from __future__ import annotations

import asyncio
import os
import selectors
import sysconfig
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["UNSEEN", "Call", "is_library", "place_of"]

UNSEEN = "a call that kept the interpreter to itself"

# asyncio's and our own frames are on every stack; the culprit is what they called.
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
_OURS = (os.path.dirname(asyncio.__file__), os.path.dirname(__file__), selectors.__file__)


class Call(NamedTuple):
    """One call of a stack: where it is."""

    file: str
    line: int
    function: str


def place_of(calls: Iterable[Call]) -> str:
    """``file:line in function`` of the user's code among the calls, the innermost first.

    Empty when there is none.
    """
    users = [call for call in calls if not is_library(call.file)]
    if not users:
        return ""
    own = (call for call in users if not call.file.startswith(_INSTALLED))
    # All of it installed: the outermost is the trigger's own run(), the innermost may be anything.
    found = next(own, users[-1])
    return f"{found.file}:{found.line} in {found.function}"


def is_library(file: str) -> bool:
    """Whether a file is asyncio's or ours, which are on every stack."""
    return file.startswith(_OURS) or file.startswith("<frozen")
