"""The line between a task and its supervisor, which alone can reach the database (H26).

A task process has one supervisor; every other process that runs user code (parser, template,
trigger runner) has none, and says so when it is asked for what only the database knows.
"""

from __future__ import annotations

from types import FrameType
from typing import Any, Protocol

from roost.exceptions import RoostException
from roost.support.wire import Reply, Request

__all__ = ["Supervisor", "ask", "get_current_context", "has_supervisor", "is_asking", "using"]


class Supervisor(Protocol):
    """Whoever answers a task's requests."""

    def call(self, request: Request) -> Reply:
        """Send one request and wait for its answer."""


_supervisor: Supervisor | None = None
_context: dict[str, Any] | None = None


class using:
    """Make ``supervisor`` and ``context`` the current ones inside a ``with`` block.

    Not a generator with ``contextmanager``: that costs each task process more.
    """

    def __init__(self, supervisor: Supervisor | None, context: dict[str, Any] | None) -> None:
        self._these = (supervisor, context)
        self._before: tuple[Supervisor | None, dict[str, Any] | None] = (None, None)

    def __enter__(self) -> None:
        global _supervisor, _context
        self._before = (_supervisor, _context)
        _supervisor, _context = self._these

    def __exit__(self, *_: object) -> None:
        global _supervisor, _context
        _supervisor, _context = self._before


def has_supervisor() -> bool:
    """Whether this process is running a task."""
    return _supervisor is not None


def ask(request: Request, what: str) -> Reply:
    """The supervisor's answer to ``request``.

    Args:
        request: what to ask.
        what: what is wanted, for the message, e.g. ``Variable 'x'``.

    Raises:
        RoostException: no task is running here, or the supervisor answers with an error.
    """
    if _supervisor is None:
        raise RoostException(
            f"{what}: the database can only be asked by a running task; read it inside the task "
            "or in a template, or set it in the environment"
        )
    reply = _supervisor.call(request)
    if reply.error is not None:
        raise RoostException(f"{what}: {reply.error}")
    return reply


def is_asking(frame: FrameType | None) -> bool:
    """Whether the code at ``frame`` was interrupted while it waits for the supervisor."""
    while frame is not None:
        if frame.f_code is ask.__code__:
            return True
        frame = frame.f_back
    return False


def get_current_context() -> dict[str, Any]:
    """The context of the running task.

    Raises:
        RoostException: no task is running here.
    """
    if _context is None:
        raise RoostException("get_current_context() works only while a task is running")
    return _context
