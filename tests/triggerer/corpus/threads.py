"""Triggers that end their runner from a thread of theirs."""

# mypy: ignore-errors


class ExitsInThread(Named):
    async def run(self):
        threading.Thread(target=os._exit, args=(6,)).start()
        await asyncio.sleep(60)
        yield


class ExitsInTimer(Named):
    async def run(self):
        threading.Timer(0.2, os._exit, (7,)).start()
        await asyncio.sleep(60)
        yield


class ExitsInToThread(Named):
    async def run(self):
        await asyncio.to_thread(os._exit, 8)
        yield
