"""Which line of a stack is the user's: what blocks is named by it, not by the library it called."""

from __future__ import annotations

import asyncio
import importlib
import os
import selectors
import sysconfig
from collections.abc import Iterable
from types import FrameType
from typing import NamedTuple

import roost

__all__ = ["UNSEEN", "Call", "calls_of", "is_library", "place_of", "place_of_import"]

UNSEEN = "a call that kept the interpreter to itself"

# asyncio's and our own frames are on every stack; the culprit is what they called.
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
_OURS = (os.path.dirname(asyncio.__file__), os.path.dirname(__file__), selectors.__file__)
# Of an import, all that executes it.
_LOADING = tuple(
    os.path.join(folder, "") for folder in (*roost.__path__, os.path.dirname(importlib.__file__))
)


class Call(NamedTuple):
    """One call of a stack: where it is."""

    file: str
    line: int
    function: str


def calls_of(top: FrameType | None) -> list[Call]:
    """The calls that a thread is in, the innermost first."""
    calls: list[Call] = []
    while top is not None:
        calls.append(Call(top.f_code.co_filename, top.f_lineno, top.f_code.co_name))
        top = top.f_back
    return calls


def place_of_import(calls: Iterable[Call]) -> str:
    """``file:line in function`` of the code that a thread imports, as :func:`place_of`.

    What is below our own calls is that of the thread; a DAG file's module is above them.
    """
    listed = list(calls)
    ours = [at for at, call in enumerate(listed) if call.file.startswith(_LOADING)]
    return place_of(
        call for call in listed[: max(ours, default=0)] if not call.file.startswith(_LOADING)
    )


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
