"""Triggers that end their runner in a step of theirs."""

# mypy: ignore-errors

import ctypes, signal


class ExitsAtOnce(Named):
    async def run(self):
        os._exit(0)
        yield


class KillsItself(Named):
    async def run(self):
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        yield


class Segfaults(Named):
    async def run(self):
        ctypes.string_at(0)
        yield


class Aborts(Named):
    async def run(self):
        os.abort()
        yield


class BecomesAnother(Named):
    async def run(self):
        os.execv("/bin/true", ["true"])
        yield
