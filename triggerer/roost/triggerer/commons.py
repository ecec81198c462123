"""What all triggers of a process use together, put back when one of them has changed it.

A trigger that patches ``time.sleep``, takes ``sys.stdout`` away or lowers the recursion limit
would fail its neighbours. After each step of a trigger the most used of these things are looked
at, which takes a third of a microsecond, so whose step it was is known; the rest once a second.
What has changed is put back, and told. Nothing here hinders a trigger that means harm: it is
for code that was written for a process of its own.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from roost.dag.trigger import BaseTrigger, TriggerEvent

__all__ = ["Commons"]

log = logging.getLogger(__name__)

_MOST_TOLD = 1_000


class _Thing(NamedTuple):
    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


class Commons:
    """The state of this process as it was when this was made.

    Args:
        loop: the loop of the triggers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._root = logging.getLogger()
        self._quick = _quick(loop, self._root)
        self._slow = _slow()
        self._was = self._state()
        self._slow_was = [thing.get() for thing in self._slow]
        self._told: set[tuple[int | None, str]] = set()

    def whole(self) -> bool:
        """Whether what is used most is as it was."""
        try:
            return self._state() == self._was
        except BaseException:  # what was put there has an __eq__ of its own, which may do anything
            return False

    def put_back(self, trigger_id: int | None) -> None:
        """Put back what has changed in a step of this trigger, and tell."""
        self._restore(self._quick, self._was, trigger_id)

    def look(self) -> None:
        """Look at all the rest; in the main thread, and no step of a trigger."""
        if not self.whole():
            self.put_back(None)
        self._restore(self._slow, self._slow_was, None)

    def _state(self) -> tuple[Any, ...]:
        """What :attr:`_quick` gets, in its order, without a call for each."""
        loop = self._loop
        return (
            time.time, time.monotonic, time.sleep, asyncio.sleep, builtins.open,
            sys.stdout, sys.stderr, sys.gettrace(), sys.getprofile(), gc.isenabled(),
            sys.getrecursionlimit(), loop.get_exception_handler(), loop.get_task_factory(),
            loop.get_debug(), [*self._root.handlers], self._root.manager.disable,
            os.path.exists, TriggerEvent.__init__, BaseTrigger.cleanup, BaseTrigger.on_stored,
        )  # fmt: skip

    def _restore(self, things: list[_Thing], were: Sequence[Any], trigger_id: int | None) -> None:
        changed = []
        for thing, was in zip(things, were, strict=True):
            with contextlib.suppress(Exception):
                if not _same(thing, was):
                    thing.put(was)
                    changed.append(thing.name)
        for name in changed:  # now that there is a log again
            self._tell(name, trigger_id)

    def _tell(self, name: str, trigger_id: int | None) -> None:
        if (trigger_id, name) in self._told or len(self._told) > _MOST_TOLD:
            return  # once for each: it may happen at every step
        self._told.add((trigger_id, name))
        who = "some trigger" if trigger_id is None else f"trigger {trigger_id}"
        log.warning(
            "%s was changed in a step of %s, and is put back: all triggers of this process use it",
            name, who,
        )  # fmt: skip


def _quick(loop: asyncio.AbstractEventLoop, root: logging.Logger) -> list[_Thing]:
    return [
        _attribute(time, "time"),
        _attribute(time, "monotonic"),
        _attribute(time, "sleep"),
        _attribute(asyncio, "sleep"),
        _attribute(builtins, "open"),
        _attribute(sys, "stdout"),
        _attribute(sys, "stderr"),
        _Thing("sys.settrace()", sys.gettrace, sys.settrace),
        _Thing("sys.setprofile()", sys.getprofile, sys.setprofile),
        _Thing("gc.disable()", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        _Thing("sys.setrecursionlimit()", sys.getrecursionlimit, sys.setrecursionlimit),
        _Thing(
            "the exception handler of the loop",
            loop.get_exception_handler,
            loop.set_exception_handler,
        ),
        _Thing("the task factory of the loop", loop.get_task_factory, loop.set_task_factory),
        _Thing("the debug mode of the loop", loop.get_debug, loop.set_debug),
        _Thing(
            "the handlers of the root logger",
            lambda: [*root.handlers],
            lambda was: root.handlers.__setitem__(slice(None), was),
        ),
        _attribute(root.manager, "disable", "logging.disable()"),
        _attribute(os.path, "exists"),
        _attribute(TriggerEvent, "__init__"),
        # Called for every trigger that ends: the next one would have what this one put there.
        _attribute(BaseTrigger, "cleanup"),
        _attribute(BaseTrigger, "on_stored"),
    ]


def _slow() -> list[_Thing]:
    return [
        _attribute(time, "perf_counter"),
        _attribute(asyncio, "wait_for"),
        _attribute(asyncio, "create_task"),
        _attribute(BaseTrigger, "run"),
        _Thing("the working directory", os.getcwd, os.chdir),
        _Thing("the umask", _umask, os.umask),
        *(_handler(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)),
    ]


def _same(thing: _Thing, was: Any) -> bool:
    try:
        now = thing.get()
        return now is was or (type(now) is type(was) and bool(now == was))
    except Exception:  # what a trigger put there; or the working directory is gone
        return False


def _attribute(owner: Any, name: str, called: str = "") -> _Thing:
    called = called or f"{owner.__name__}.{name}"
    return _Thing(called, lambda: getattr(owner, name), lambda was: setattr(owner, name, was))


def _handler(number: signal.Signals) -> _Thing:
    return _Thing(
        f"the handler of {number.name}",
        lambda: signal.getsignal(number),
        lambda was: signal.signal(number, was),
    )


def _umask() -> int:
    """The umask, without changing it for an instant."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    raise OSError("a kernel that does not tell the umask")
