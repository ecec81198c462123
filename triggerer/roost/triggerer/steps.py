"""Notes whose code the runner executes at this moment, where its supervisor finds it afterwards.

A trigger can end the process it shares with thousands (``os._exit``, a crash in C code), or block
it until the supervisor kills it. The supervisor would start it again with the next runner, for
ever. So every task of a trigger runs inside a :class:`Steps`, which writes the trigger's id into
memory shared with the supervisor before each step and 0 after it: what stands there when the
runner has ended is the culprit (:mod:`roost.triggerer.strikes`). A trigger that sleeps costs
nothing, a step some hundred nanoseconds.

So is the trigger for which a DAG file is imported. Not seen: callbacks outside of tasks, and
threads. They leave 0, and 0 accuses nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from collections.abc import Coroutine, Generator, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from roost.triggerer.case import CURRENT
from roost.triggerer.messages import SLOT_BYTES

__all__ = ["Steps", "attach", "importing", "started_by", "task_factory"]

T = TypeVar("T")

# Two numbers, or 0: the trigger whose step is executing, and the one whose code is imported in a
# thread beside it. Private until attach().
_slot = memoryview(bytearray(SLOT_BYTES)).cast("q")

# Which trigger started a task; a trigger's own task bears its id as name.
_STARTED_BY: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()


def attach(fd: int) -> None:
    """Write into this file's memory from now on; ``fd`` may be closed afterwards."""
    global _slot
    _slot = memoryview(mmap.mmap(fd, SLOT_BYTES)).cast("q")


@contextlib.contextmanager
def importing(trigger_id: int) -> Iterator[None]:
    """Note that the code of this trigger is imported."""
    _slot[1] = trigger_id
    try:
        yield
    finally:
        _slot[1] = 0


class Steps(Coroutine[Any, Any, T]):
    """A coroutine whose every step is noted as the trigger's; otherwise as the one it wraps."""

    __slots__ = ("_coro", "_trigger_id")

    def __init__(self, coro: Coroutine[Any, Any, T], trigger_id: int) -> None:
        self._coro = coro
        self._trigger_id = trigger_id

    def note_as(self, trigger_id: int) -> None:
        """Note further steps as another trigger's."""
        self._trigger_id = trigger_id

    def send(self, value: Any) -> Any:
        """One step."""
        _slot[0] = self._trigger_id
        try:
            return self._coro.send(value)
        finally:
            _slot[0] = 0

    def throw(self, *error: Any) -> Any:
        """One step that begins with an exception, e.g. with being cancelled."""
        _slot[0] = self._trigger_id
        try:
            return self._coro.throw(*error)
        finally:
            _slot[0] = 0

    def close(self) -> None:
        """End the coroutine."""
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        # cr_frame, cr_running, …: asyncio and anyio look at the coroutine of a task.
        return getattr(self._coro, name)


def task_factory(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **kwargs: Any,
) -> asyncio.Task[Any]:
    """Note whose task it is when a trigger starts one, so that it can be told what it does."""
    trigger_id = CURRENT.get(None)
    if trigger_id is None:
        return asyncio.Task(coro, loop=loop, **kwargs)
    if asyncio.iscoroutine(coro):  # else Task says what is wrong
        coro = Steps(coro, trigger_id)
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
    _STARTED_BY[task] = trigger_id
    return task


def started_by(task: asyncio.Task[Any]) -> int | None:
    """The trigger whose code started this task; None for a trigger's own task and for ours."""
    return _STARTED_BY.get(task)
