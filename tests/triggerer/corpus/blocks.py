"""Triggers that wait without awaiting, again and again."""

# mypy: ignore-errors

import queue, socket, subprocess


class SleepsSync(Named):
    async def run(self):
        while True:
            await asyncio.sleep(0.1)
            time.sleep(0.4)
        yield


class Spins(Named):
    async def run(self):
        while True:
            await asyncio.sleep(0.1)
            until = time.thread_time() + 0.4
            while time.thread_time() < until:
                pass  # it spins
        yield


class ReadsSocket(Named):
    async def run(self):
        mine, theirs = socket.socketpair()
        mine.settimeout(0.4)
        while True:
            await asyncio.sleep(0.1)
            try:
                mine.recv(1)
            except TimeoutError:
                pass
        yield


class RunsCommand(Named):
    async def run(self):
        async def work():
            subprocess.run(["sleep", "0.4"], stdin=subprocess.DEVNULL)

        while True:
            await asyncio.sleep(0.1)
            await asyncio.ensure_future(work())
        yield


class WaitsForQueue(Named):
    async def run(self):
        while True:
            await asyncio.sleep(0.1)
            try:
                queue.Queue().get(timeout=0.4)
            except queue.Empty:
                pass
        yield
