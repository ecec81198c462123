"""Triggers that block where one does not look for it: before, after and beside run()."""

# mypy: ignore-errors


class BlocksInInit(Named):
    def __init__(self):
        time.sleep(0.4)  # in init

    async def run(self):
        yield TriggerEvent("well")


class BlocksInCleanup(Named):
    async def run(self):
        yield TriggerEvent("well")

    async def cleanup(self):
        time.sleep(0.4)  # in cleanup


class BlocksInFinally(Named):
    async def run(self):
        try:
            yield TriggerEvent("well")
        finally:
            time.sleep(0.4)  # in finally


class BlocksInCallback(Named):
    async def run(self):
        asyncio.get_running_loop().call_soon(self.work)
        await asyncio.sleep(0.5)
        yield TriggerEvent("well")

    def work(self):
        time.sleep(0.4)  # in a callback


class BlocksInTimer(Named):
    """No code of its own is called, only C."""

    async def run(self):
        asyncio.get_running_loop().call_later(0.1, time.sleep, 0.4)
        await asyncio.sleep(0.8)
        yield TriggerEvent("well")


class BlocksInDoneCallback(Named):
    async def run(self):
        task = asyncio.ensure_future(asyncio.sleep(0))
        task.add_done_callback(lambda _: time.sleep(0.4))  # when done
        await asyncio.sleep(0.8)
        yield TriggerEvent("well")


class BlocksInDel(Named):
    async def run(self):
        class Thing:
            def __del__(self):
                time.sleep(0.4)  # in del

        thing = Thing()
        await asyncio.sleep(0)
        del thing
        yield TriggerEvent("well")
