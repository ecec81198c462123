"""Triggers that change what every other trigger of their process uses."""

# mypy: ignore-errors

import builtins, decimal, faulthandler, gc, locale, random, socket


def refuse(*args, **kwargs):
    raise RuntimeError("patched by a neighbour")


class PatchesTime(Named):
    async def run(self):
        time.time = lambda: 0.0
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class PatchesMonotonic(Named):
    async def run(self):
        time.monotonic = refuse
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class PatchesSleep(Named):
    async def run(self):
        mine = asyncio.sleep
        asyncio.sleep = refuse
        await mine(0.1)
        yield TriggerEvent("well")


class PatchesTheEvent(Named):
    async def run(self):
        TriggerEvent.__init__ = refuse
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class PatchesTheBase(Named):
    async def run(self):
        BaseTrigger.cleanup = refuse
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class PatchesOpen(Named):
    async def run(self):
        builtins.open = refuse
        os.path.exists = refuse
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class StopsCollecting(Named):
    async def run(self):
        gc.disable()
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class LowersRecursion(Named):
    async def run(self):
        sys.setrecursionlimit(60)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class Traces(Named):
    async def run(self):
        def trace(frame, event, argument):
            return trace

        sys.settrace(trace)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class TracesBadly(Named):
    async def run(self):
        sys.setprofile(refuse)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class HandlesFaults(Named):
    async def run(self):
        faulthandler.enable()
        faulthandler.dump_traceback_later(0.2, exit=False)
        await asyncio.sleep(0.3)
        yield TriggerEvent("well")


class SeedsRandom(Named):
    async def run(self):
        random.seed(1)
        decimal.getcontext().prec = 1
        locale.setlocale(locale.LC_ALL, "C")
        socket.setdefaulttimeout(0.001)
        yield TriggerEvent("well")


class ReplacesHooks(Named):
    async def run(self):
        sys.excepthook = threading.excepthook = sys.unraisablehook = refuse
        threading.Thread(target=refuse).start()
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ForgetsModules(Named):
    async def run(self):
        for name in ("json", "asyncio", "roost.dag.trigger", "logging"):
            sys.modules.pop(name, None)
        sys.path.clear()
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")
