"""Triggers that end their runner in a less common way, and still are seen at it."""

# mypy: ignore-errors

import resource


class OverflowsTheStack(Named):
    async def run(self):
        deep = []
        for _ in range(200_000):
            deep = [deep]
        while True:
            sys.setrecursionlimit(1 << 30)
            try:
                repr(deep)
            except RecursionError:
                pass  # the limit was put back meanwhile, after an import in a thread
        yield


class LimitsItsCpu(Named):
    async def run(self):
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        while True:
            pass
        yield


class ForksAndExits(Named):
    """Its child holds all that the runner had open, and stays."""

    async def run(self):
        if os.fork() == 0:
            time.sleep(20)
        os._exit(4)
        yield


class ExitsInCallback(Named):
    async def run(self):
        asyncio.get_running_loop().call_soon(os._exit, 6)
        await asyncio.sleep(60)
        yield


class ExitsInCleanup(Named):
    async def run(self):
        raise ValueError("first this")
        yield

    async def cleanup(self):
        os._exit(7)
