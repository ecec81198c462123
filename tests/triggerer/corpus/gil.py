"""Triggers that call what holds the GIL, again and again: the watchdog's thread stands, too."""

# mypy: ignore-errors

import ctypes, json, re


class MatchesBadly(Named):
    async def run(self):
        while True:
            await asyncio.sleep(0.1)
            re.match("(x+)+y", "x" * 25)
        yield


class Counts(Named):
    async def run(self):
        while True:
            await asyncio.sleep(0.1)
            sum(range(50_000_000))
        yield


class Multiplies(Named):
    async def run(self):
        while True:
            await asyncio.sleep(0.1)
            pow(7, 2_500_000) % 10
        yield


class SleepsInC(Named):
    async def run(self):
        while True:
            await asyncio.sleep(0.1)
            for _ in range(3):  # the signal that asks where it is ends the first one early
                ctypes.PyDLL(None).usleep(500_000)
        yield


class ReadsHugeJson(Named):
    async def run(self):
        text = "[" + "1.5," * 8_000_000 + "0]"
        while True:
            await asyncio.sleep(0.1)
            json.loads(text)
        yield
