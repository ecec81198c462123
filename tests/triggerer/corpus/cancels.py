"""Triggers that do not end as they should when nobody waits for them any more."""

# mypy: ignore-errors


class Swallows(Named):
    async def run(self):
        while True:
            try:
                await asyncio.sleep(3600)
            except BaseException:
                pass
        yield


class SwallowsOnce(Named):
    async def run(self):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        await asyncio.sleep(3600)
        yield


class SleepsInFinally(Named):
    async def run(self):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(3600)
        yield


class Shields(Named):
    async def run(self):
        while True:
            try:
                await asyncio.shield(asyncio.sleep(3600))
            except asyncio.CancelledError:
                pass
        yield


class FiresWhenCancelled(Named):
    async def run(self):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            yield TriggerEvent("too late")


class CleanupHangs(Named):
    async def run(self):
        await asyncio.sleep(3600)
        yield

    async def cleanup(self):
        await asyncio.sleep(3600)


class CleanupRaises(Named):
    async def run(self):
        await asyncio.sleep(3600)
        yield

    async def cleanup(self):
        raise ConnectionError("the broom is broken")


class CleanupExits(Named):
    async def run(self):
        await asyncio.sleep(3600)
        yield

    async def cleanup(self):
        sys.exit(13)


class CleanupBlocks(Named):
    async def run(self):
        await asyncio.sleep(3600)
        yield

    async def cleanup(self):
        time.sleep(0.5)


class CleanupCancelsItself(Named):
    async def run(self):
        await asyncio.sleep(3600)
        yield

    async def cleanup(self):
        asyncio.current_task().cancel()
        await asyncio.sleep(3600)


class ExitsWhenCancelled(Named):
    async def run(self):
        try:
            await asyncio.sleep(3600)
        finally:
            raise SystemExit(14)
        yield
