"""Triggers that take the line to its supervisor from their runner: which one did is not seen."""

# mypy: ignore-errors


def line():
    """The descriptor that the supervisor talks to."""
    return int(sys.orig_argv[-3])


class ClosesAll(Named):
    async def run(self):
        await asyncio.sleep(0.3)
        os.closerange(3, 1000)
        await asyncio.sleep(60)
        yield


class WritesGarbage(Named):
    async def run(self):
        await asyncio.sleep(0.3)
        os.write(line(), b"\xff" * 64)
        await asyncio.sleep(60)
        yield
