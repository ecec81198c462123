"""Triggers that stop their runner for good, so that it can say nothing."""

# mypy: ignore-errors

import re, signal


class StopsItself(Named):
    async def run(self):
        os.kill(os.getpid(), signal.SIGSTOP)
        yield


class LocksItself(Named):
    async def run(self):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
        yield


class MatchesForever(Named):
    async def run(self):
        re.match("(x+)+y", "x" * 60)
        yield
