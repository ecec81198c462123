"""A DAG file with trigger classes that do everything wrong, and one that does it right."""

# It stands in for users' files, which nobody lints or annotates.
# ruff: noqa: ASYNC221, ASYNC230, ASYNC251, T201, SIM105
# mypy: ignore-errors

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

from roost.dag.trigger import BaseTrigger, TriggerEvent


class Named(BaseTrigger):
    def serialize(self):
        return (type(self).__name__, {})


class Healthy(BaseTrigger):
    """Ticks for a while and fires with the number of its ticks."""

    def __init__(self, ticks, note=None):
        self.ticks = ticks
        self.note = note

    def serialize(self):
        return ("Healthy", {"ticks": self.ticks})

    async def run(self):
        for _ in range(self.ticks):
            await asyncio.sleep(0.05)
        yield TriggerEvent(self.ticks)

    async def cleanup(self):
        if self.note:
            with open(self.note, "a") as file:
                file.write("cleaned\n")


class Raises(Named):
    async def run(self):
        await asyncio.sleep(0)
        raise ValueError("the warehouse is closed\0")
        yield


class RaisesInInit(Named):
    def __init__(self):
        raise KeyError("no such kwarg")

    async def run(self):
        yield TriggerEvent()


class ExitsInInit(Named):
    def __init__(self):
        sys.exit(9)

    async def run(self):
        yield TriggerEvent()


class NoEvent(Named):
    async def run(self):
        if self is None:
            yield TriggerEvent()


class Returns(Named):
    async def run(self):
        return TriggerEvent(1)


class NotAsync(Named):
    def run(self):
        yield TriggerEvent(1)


class YieldsPlain(Named):
    async def run(self):
        yield {"rows": 42}


class YieldsNan(Named):
    async def run(self):
        yield TriggerEvent(float("nan"))


class YieldsNul(Named):
    async def run(self):
        yield TriggerEvent("a\0b")


class YieldsSurrogate(Named):
    async def run(self):
        yield TriggerEvent("\ud800")


class YieldsObject(Named):
    async def run(self):
        yield TriggerEvent(object())


class YieldsHuge(Named):
    async def run(self):
        yield TriggerEvent("x" * 100_000_000)


class YieldsEndless(Named):
    async def run(self):
        loop = []
        loop.append(loop)
        yield TriggerEvent(loop)


class Exits(Named):
    async def run(self):
        sys.exit(3)
        yield


class Interrupts(Named):
    async def run(self):
        raise KeyboardInterrupt
        yield


class CancelsItself(Named):
    async def run(self):
        asyncio.current_task().cancel()
        await asyncio.sleep(60)
        yield


class RaisesCancelled(Named):
    async def run(self):
        raise asyncio.CancelledError
        yield


class Recurses(Named):
    async def run(self):
        def deeper():
            deeper()

        deeper()
        yield


class ExitsInTask(Named):
    async def run(self):
        async def leave():
            sys.exit(4)

        await asyncio.ensure_future(leave())
        yield


class ExitsInCallback(Named):
    async def run(self):
        asyncio.get_running_loop().call_soon(sys.exit, 5)
        await asyncio.sleep(0.01)
        raise RuntimeError("still there")
        yield


class BadStr(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class RaisesUnprintable(Named):
    async def run(self):
        raise BadStr
        yield


class Prints(Named):
    async def run(self):
        for _ in range(2000):
            print("flood " * 20)
        raise RuntimeError("printed enough")
        yield


class LeaksThread(Named):
    async def run(self):
        threading.Thread(target=time.sleep, args=(3600,)).start()
        raise RuntimeError("left a thread")
        yield


class Forks(Named):
    async def run(self):
        if os.fork() == 0:
            raise RuntimeError("the child must not report")
        raise RuntimeError("only the parent reports")
        yield


class BadGenerator(Named):
    """Fires, and then does not let itself be closed."""

    async def run(self):
        while True:
            try:
                yield TriggerEvent("first")
            except GeneratorExit:
                pass

    async def cleanup(self):
        raise SystemExit(7)


class Blocks(Named):
    async def run(self):
        await asyncio.sleep(0)
        time.sleep(0.5)  # the culprit's line
        yield TriggerEvent("late")


class BlocksInOddFile(Named):
    """The code that blocks has a name that is no text: as a file may have."""

    async def run(self):
        exec(compile("time.sleep(0.5)", os.fsdecode(b"/tmp/\xff.py"), "exec"))  # noqa: S102
        yield TriggerEvent("well")


class BlocksInTask(Named):
    async def run(self):
        async def work():
            subprocess.run(["sleep", "0.5"])

        task = asyncio.ensure_future(work())
        task.set_name("a name of its own")
        await task
        yield TriggerEvent("late")


class BlocksInCallback(Named):
    async def run(self):
        asyncio.get_running_loop().call_soon(self.work)
        await asyncio.sleep(0.1)
        yield TriggerEvent("late")

    def work(self):
        time.sleep(0.5)


class Stubborn(BaseTrigger):
    """Swallows its first cancellation."""

    def __init__(self, note):
        self.note = note

    def serialize(self):
        return ("Stubborn", {"note": self.note})

    def write(self, text):
        with open(self.note, "a") as file:
            file.write(text + "\n")

    async def run(self):
        self.write("running")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.write("swallowed")
        await asyncio.sleep(3600)
        yield TriggerEvent()

    async def cleanup(self):
        self.write("cleaned")


class Hangs(Named):
    """Never gives the loop back."""

    async def run(self):
        while True:
            time.sleep(1)
        yield


class GoesOn(BaseTrigger):
    """Does something behind its event."""

    def __init__(self, note, then):
        self.note = note
        self.then = then

    def serialize(self):
        return ("GoesOn", {"note": self.note, "then": self.then})

    def write(self, text):
        with open(self.note, "a") as file:
            file.write(text + "\n")

    async def run(self):
        yield TriggerEvent("first")
        await asyncio.sleep(0.01)
        self.write("went on")
        if self.then == "raises":
            raise ValueError("too late")
        if self.then == "yields":
            yield TriggerEvent("second")
        while self.then in ("waits", "stays"):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.write("cancelled")
                if self.then == "waits":
                    raise

    async def cleanup(self):
        self.write("cleaned")
