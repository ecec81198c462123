"""Triggers that write too much, to the wrong place, or take the streams away."""

# mypy: ignore-errors

import logging, warnings


class PrintsEndlessLine(Named):
    async def run(self):
        for _ in range(10):
            print("x" * 1_000_000, end="")
            await asyncio.sleep(0)
        yield TriggerEvent("well")


class PrintsToStderr(Named):
    async def run(self):
        for number in range(5000):
            sys.stderr.write(f"complaint {number}\n")
        yield TriggerEvent("well")


class LogsAFlood(Named):
    async def run(self):
        for number in range(5000):
            logging.getLogger("users.own").error("flood %d", number)
        yield TriggerEvent("well")


class LogsNonsense(Named):
    async def run(self):
        logging.getLogger("users.own").error("%d and %d", "not a number")
        yield TriggerEvent("well")


class WritesRawBytes(Named):
    async def run(self):
        for fd in (1, 2):
            os.write(fd, b"\xff\xfe\0raw\n")
        sys.stdout.buffer.write(b"\xff\0\n")
        yield TriggerEvent("well")


class ReplacesStdout(Named):
    async def run(self):
        sys.stdout = sys.stderr = None
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ClosesStdout(Named):
    async def run(self):
        sys.stdout.close()
        sys.stderr.close()
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ClosesFds(Named):
    async def run(self):
        os.close(0)
        os.close(1)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class EndsLogging(Named):
    async def run(self):
        logging.shutdown()
        logging.getLogger().handlers.clear()
        logging.disable(logging.CRITICAL)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ConfiguresLogging(Named):
    async def run(self):
        class Raises(logging.Handler):
            def emit(self, record):
                raise SystemExit("no log today")

        logging.basicConfig(force=True, handlers=[Raises()])
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class WarnsAsErrors(Named):
    async def run(self):
        warnings.simplefilter("error")
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class PrintsSurrogates(Named):
    async def run(self):
        print("half a character: \ud800\0")
        yield TriggerEvent("well")


class PrintsInThread(Named):
    async def run(self):
        def flood():
            for number in range(5000):
                print("thread", number)

        await asyncio.to_thread(flood)
        yield TriggerEvent("well")
