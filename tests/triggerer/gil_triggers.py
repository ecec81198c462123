"""A DAG file whose triggers call what holds the GIL; read as text by the tests."""

# It stands in for users' files, which nobody lints or annotates.
# ruff: noqa: ASYNC110, S311
# mypy: ignore-errors

from __future__ import annotations

import asyncio
import ctypes
import random
import re
import threading

from roost.dag.trigger import BaseTrigger, TriggerEvent


class Ticks(BaseTrigger):
    """Healthy: takes a step as often as it can, and another outside of its task."""

    def serialize(self):
        return ("Ticks", {})

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            loop.call_soon(self.tick)
            await asyncio.sleep(random.choice((0, 0.001, 0.01)))
        yield

    def tick(self):
        self.ticked = True


class Calls(BaseTrigger):
    """Calls something that holds the GIL, so many times; ``how`` says where."""

    def __init__(self, what, how="step", times=1):
        self.what, self.how, self.times = what, how, times

    def serialize(self):
        return ("Calls", {"what": self.what, "how": self.how, "times": self.times})

    async def run(self):
        for _ in range(self.times):
            await asyncio.sleep(0.05)
            if self.how == "task":
                await asyncio.ensure_future(self.in_task())
            elif self.how == "callback":
                asyncio.get_running_loop().call_soon(self.call)
                await asyncio.sleep(0.01)
            elif self.how == "bare":  # nothing of Python is called, neither before nor after
                asyncio.get_running_loop().call_soon(sum, range(25_000_000))
                await asyncio.sleep(0.01)
            elif self.how == "thread":
                thread = threading.Thread(target=self.call)
                thread.start()
                while thread.is_alive():
                    await asyncio.sleep(0.001)
            elif self.how == "crowd":
                spinning = [threading.Thread(target=self.spin) for _ in range(4)]
                self.stop = False
                [thread.start() for thread in spinning]
                await asyncio.sleep(0.02)
                self.call()
                self.stop = True
                await asyncio.sleep(0.02)
                [thread.join() for thread in spinning]
            else:
                self.call()
        yield TriggerEvent(self.what)

    async def in_task(self):
        return _CALLS[self.what]()

    def call(self):
        _CALLS[self.what]()

    def spin(self):
        while not self.stop:
            sum(range(1000))


_CALLS = {
    "regex": lambda: re.match("(x+)+y", "x" * 23),
    "sum": lambda: sum(range(25_000_000)),
    "power": lambda: 7**2_000_000 % 10,
    "sleep": lambda: ctypes.PyDLL(None).usleep(400_000),
}
