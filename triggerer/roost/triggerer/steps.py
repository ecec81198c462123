"""Notes whose code the runner executes at this moment, where its supervisor finds it afterwards.

A trigger can end the process it shares with thousands (``os._exit``, a crash in C code), or block
it until the supervisor kills it. The supervisor would start it again with the next runner, for
ever. So every task of a trigger runs inside a :class:`Steps`, which writes the trigger's id into
memory shared with the supervisor before each step and 0 after it: what stands there when the
runner has ended is the culprit (:mod:`roost.triggerer.strikes`). A trigger that sleeps costs
nothing, a step some hundred nanoseconds.

So are callbacks outside of tasks, as those of the trigger that registered them, and the trigger
for which a DAG file is imported (:mod:`roost.triggerer.importing`). Not seen: threads, and
callbacks of another loop than asyncio's. They leave 0, and 0 accuses nobody.

What is executing, and since when, is also there for the watchdog's thread. A step that took long
is noted with its begin and end by the loop's own thread: a call that keeps the interpreter to
itself stops the watchdog, but not the clock.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from roost.triggerer.case import CURRENT
from roost.triggerer.commons import Commons
from roost.triggerer.messages import SHARED_BYTES

__all__ = [
    "LONG_S",
    "LOOK_S",
    "Executing",
    "Long",
    "Steps",
    "accuse",
    "attach",
    "count_look",
    "executing",
    "keep",
    "note_callbacks",
    "note_import",
    "put_back",
    "started_by",
    "take_long",
    "task_factory",
    "watchdog_thread",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

# The watchdog looks so often, and tells of what took so long.
LOOK_S = 0.05
LONG_S = 0.15

Executing = tuple[object, int, float]
"""What executes - :class:`Steps`, or asyncio's handle of a callback -, whose it is, since when."""


class Long(NamedTuple):
    """A step that is over and took long by the clock, whatever it waited for.

    Attributes:
        step: what was executing.
        ended: when it ended, as ``time.monotonic()`` tells.
    """

    step: Executing
    ended: float


# What messages.SLOT_BYTES tells of. Private until attach().
_slot = memoryview(bytearray(SHARED_BYTES)).cast("q")

# What a step must leave as it was; None until keep().
_commons: Commons | None = None

_executing: Executing | None = None
_step_ended = 0.0
_long: deque[Long] = deque(maxlen=1_000)
_now = time.monotonic  # a trigger may replace the other

# Which trigger started a task; a trigger's own task bears its id as name.
_STARTED_BY: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()


def attach(fd: int) -> None:
    """Write into this file's memory from now on; ``fd`` may be closed afterwards."""
    global _slot
    _slot = memoryview(mmap.mmap(fd, SHARED_BYTES)).cast("q")
    os.register_at_fork(after_in_child=_detach)


def _detach() -> None:
    """What a forked child does is none of the runner's steps."""
    global _slot
    _slot = memoryview(bytearray(SHARED_BYTES)).cast("q")


def count_look() -> None:
    """Note that the watchdog has looked: the thread that calls this."""
    _slot[2] += 1
    _slot[3] = threading.get_native_id()


def watchdog_thread() -> int:
    """The kernel's id of the watchdog's thread; 0 before its first look."""
    return _slot[3]


def note_import(trigger_id: int, thread: int) -> None:
    """Note that the code of this trigger is imported by this thread, or by none: 0, 0.

    Args:
        trigger_id: one of those that need the code.
        thread: the kernel's id.
    """
    _slot[4] = thread  # first: whoever reads the other finds this
    _slot[1] = trigger_id


def put_back(trigger_id: int) -> None:
    """Put back what a trigger's code has changed for all; see :func:`keep`."""
    if _commons is not None and not _commons.whole():
        _commons.put_back(trigger_id)


def accuse(trigger_id: int) -> None:
    """Note that this trigger is about to end the process, whatever is executing; 0: nobody.

    Where its code is being imported, that tells all.
    """
    _slot[0] = 0 if trigger_id == _slot[1] else trigger_id


def executing() -> Executing | None:
    """What the loop's thread executes for a trigger; the same object as long as it goes on."""
    return _executing


def take_long() -> list[Long]:
    """The long steps that have ended since the last call, oldest first."""
    found = []
    while _long:
        found.append(_long.popleft())
    return found


def keep(commons: Commons) -> None:
    """See to it from now on that each step leaves this as it was."""
    global _commons
    _commons = commons


class Steps(Coroutine[Any, Any, T]):
    """A coroutine whose every step is noted as the trigger's; otherwise as the one it wraps."""

    __slots__ = ("_abandoned", "_coro", "_trigger_id")

    def __init__(self, coro: Coroutine[Any, Any, T], trigger_id: int) -> None:
        self._coro = coro
        self._trigger_id = trigger_id
        self._abandoned = False

    def note_as(self, trigger_id: int) -> None:
        """Note further steps as another trigger's."""
        self._trigger_id = trigger_id

    def send(self, value: Any) -> Any:
        """One step."""
        if self._abandoned:
            raise StopIteration
        global _executing
        outer = _executing
        _executing = step = (self, self._trigger_id, _now())
        _slot[0] = self._trigger_id
        try:
            return self._coro.send(value)
        finally:
            _over(step, outer, self._trigger_id)
            outer = None  # a traceback may keep this frame: see note_callbacks

    def throw(self, *error: Any) -> Any:
        """One step that begins with an exception, e.g. with being cancelled."""
        if self._abandoned:
            raise StopIteration
        global _executing
        outer = _executing
        _executing = step = (self, self._trigger_id, _now())
        _slot[0] = self._trigger_id
        try:
            return self._coro.throw(*error)
        finally:
            _over(step, outer, self._trigger_id)
            outer = None  # a traceback may keep this frame: see note_callbacks

    def abandon(self) -> None:
        """Take no step any more: with the next, the task is over, whatever its code wants."""
        self._abandoned = True

    def close(self) -> None:
        """End the coroutine."""
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        # cr_frame, cr_running, …: asyncio and anyio look at the coroutine of a task.
        return getattr(self._coro, name)


def _over(step: Executing, outer: Executing | None, trigger_id: int) -> None:
    """A step of this trigger has ended, and what called it goes on, if anything."""
    global _executing, _step_ended
    _step_ended = now = _now()
    if now - step[2] >= LONG_S:
        _long.append(Long(step, now))
    _executing = outer
    _slot[0] = 0 if outer is None else outer[1]
    if _commons is not None and not _commons.whole():
        _commons.put_back(_slot[1] or trigger_id)


def note_callbacks() -> None:
    """Note from now on which trigger's callbacks asyncio's loops call in this process.

    Every step of a task is one of these, too; it is noted as that alone, by :class:`Steps`.
    """
    call = asyncio.Handle._run

    def _run(self: Any) -> None:
        global _executing
        trigger_id = self._context.get(CURRENT)
        callback = None
        try:
            if trigger_id is None or _executing is not None:
                call(self)
                return
            _executing = callback = (self, trigger_id, _now())
            _slot[0] = trigger_id
            call(self)
        finally:
            if callback is not None:
                now = _now()
                if now - callback[2] >= LONG_S and _step_ended < callback[2]:
                    _long.append(Long(callback, now))
                _executing = None
                _slot[0] = 0
            # The traceback of what a task raised leads to this frame: were the task's handle kept
            # here, a lost task would never be freed, and never say what it raised.
            self = callback = None

    asyncio.Handle._run = _run  # type: ignore[method-assign]


class _Own(asyncio.Task[Any]):
    """A task of the runner's own, or the main one of a trigger: no other trigger cancels it.

    ``for task in asyncio.all_tasks(): task.cancel()`` is what scripts end with.
    """

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task, unless another trigger's step asks for it."""
        caller = CURRENT.get(None)
        if caller is not None and self.get_name() != f"trigger-{caller}":
            executing = asyncio.current_task()
            if executing is not None and executing is not self:
                log.warning(
                    "trigger %d tried to cancel %s, which is not its own", caller, self.get_name()
                )
                return False
        return super().cancel(msg)


def task_factory(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **kwargs: Any,
) -> asyncio.Task[Any]:
    """Note whose task it is when a trigger starts one, so that it can be told what it does."""
    trigger_id = CURRENT.get(None)
    if trigger_id is None:
        return _Own(coro, loop=loop, **kwargs)
    if asyncio.iscoroutine(coro):  # else Task says what is wrong
        coro = Steps(coro, trigger_id)
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
    _STARTED_BY[task] = trigger_id
    return task


def started_by(task: asyncio.Task[Any]) -> int | None:
    """The trigger whose code started this task; None for a trigger's own task and for ours."""
    return _STARTED_BY.get(task)
