"""The line between user code and its supervisor, which alone can reach the database (H26).

A task process has one supervisor. In a trigger runner every trigger has: it awaits the answer
(:func:`ask_async`), or asks from a thread. Every other process that runs user code (parser,
template) has none, and says so when it is asked for what only the database knows.
"""

from __future__ import annotations

from types import FrameType
from typing import Any, Protocol

from roost.exceptions import RoostException
from roost.support.task_requests import Reply, Request

__all__ = [
    "Supervisor",
    "TriggerSupervisor",
    "ask",
    "ask_async",
    "get_current_context",
    "has_supervisor",
    "is_asking",
    "serving_triggers",
    "using",
]


class Supervisor(Protocol):
    """Whoever answers a task's requests."""

    def call(self, request: Request) -> Reply:
        """Send one request and wait for its answer."""


class TriggerSupervisor(Supervisor, Protocol):
    """Whoever answers the requests of all triggers of this process."""

    def is_asked(self) -> bool:
        """Whether the calling code is a trigger's, and not e.g. a DAG file being imported."""

    async def call_async(self, request: Request) -> Reply:
        """Send one request and await its answer."""


_supervisor: Supervisor | None = None
_of_triggers: TriggerSupervisor | None = None
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


class serving_triggers:
    """Have ``supervisor`` answer the triggers of this process inside a ``with`` block."""

    def __init__(self, supervisor: TriggerSupervisor) -> None:
        self._this = supervisor
        self._before: TriggerSupervisor | None = None

    def __enter__(self) -> None:
        global _of_triggers
        self._before = _of_triggers
        _of_triggers = self._this

    def __exit__(self, *_: object) -> None:
        global _of_triggers
        _of_triggers = self._before


def has_supervisor() -> bool:
    """Whether a task is running in this process, or the calling code is a trigger's."""
    return _supervisor is not None or _triggers_supervisor() is not None


def _triggers_supervisor() -> TriggerSupervisor | None:
    return _of_triggers if _of_triggers is not None and _of_triggers.is_asked() else None


def ask(request: Request, what: str) -> Reply:
    """The supervisor's answer to ``request``.

    Args:
        request: what to ask.
        what: what is wanted, for the message, e.g. ``Variable 'x'``.

    Raises:
        RoostException: no task or trigger is running here, a trigger asks where it would block
            all others, or the supervisor answers with an error.
    """
    supervisor = _supervisor or _triggers_supervisor()
    if supervisor is None:
        raise _nobody(what)
    return _checked(supervisor.call(request), what)


async def ask_async(request: Request, what: str) -> Reply:
    """The same for code that must not block its event loop: a trigger's.

    In a task, whose loop is its own, the answer is waited for on the spot.
    """
    supervisor = None if _supervisor is not None else _triggers_supervisor()
    if supervisor is None:
        return ask(request, what)
    return _checked(await supervisor.call_async(request), what)


def _nobody(what: str) -> RoostException:
    return RoostException(
        f"{what}: the database can only be asked by a running task or trigger; read it inside the "
        "task or in a template, or set it in the environment"
    )


def _checked(reply: Reply, what: str) -> Reply:
    if reply.error is not None:
        said = reply.error
        raise RoostException(said if said.startswith(what) else f"{what}: {said}")
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
