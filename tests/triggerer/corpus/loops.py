"""Triggers that treat the loop as if it were theirs."""

# mypy: ignore-errors


class StopsTheLoop(Named):
    async def run(self):
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ClosesTheLoop(Named):
    async def run(self):
        asyncio.get_running_loop().close()
        yield


class RunsALoop(Named):
    async def run(self):
        asyncio.run(asyncio.sleep(0))
        yield


class ReplacesTheLoop(Named):
    async def run(self):
        asyncio.set_event_loop(asyncio.new_event_loop())
        asyncio.set_event_loop_policy(None)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class CancelsAll(Named):
    async def run(self):
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class CancelsAllWithItself(Named):
    async def run(self):
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(0.1)
        yield


class LeaksTasks(Named):
    async def run(self):
        async def tick():
            while True:
                await asyncio.sleep(0.5)

        self.tasks = [asyncio.ensure_future(tick()) for _ in range(100)]
        yield TriggerEvent("well")


class FloodsTheLoop(Named):
    async def run(self):
        loop = asyncio.get_running_loop()
        for _ in range(50_000):
            loop.call_soon(int)
        await asyncio.sleep(0)
        yield TriggerEvent("well")


class LosesATask(Named):
    async def run(self):
        async def fails():
            raise ValueError("nobody caught me")

        asyncio.ensure_future(fails())
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ExitsInCallback(Named):
    async def run(self):
        asyncio.get_running_loop().call_soon(sys.exit, 5)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class HandlesExceptions(Named):
    async def run(self):
        def handler(loop, context):
            raise SystemExit("not my job")

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(handler)
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class MakesTasksItsWay(Named):
    async def run(self):
        def factory(loop, coro, **kwargs):
            raise RuntimeError("no more tasks")

        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class Debugs(Named):
    async def run(self):
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ForgetsToAwait(Named):
    async def run(self):
        asyncio.sleep(1)
        yield TriggerEvent("well")
