"""Triggers that break the contract of their class, and errors that cannot be told."""

# mypy: ignore-errors


class YieldsTwice(Named):
    async def run(self):
        yield TriggerEvent("first")
        yield TriggerEvent("second")


class YieldsEndlessly(Named):
    async def run(self):
        number = 0
        while True:
            yield TriggerEvent(number)
            number += 1


class NoRun(Named):
    """An abstract class: run() is missing."""


class YieldsClass(Named):
    async def run(self):
        yield TriggerEvent


class RunRaises(Named):
    def run(self):
        raise ZeroDivisionError("before the generator")


class RunIsNone(Named):
    run = None


class AnextIsNoAwaitable(Named):
    def run(self):
        return self

    def __aiter__(self):
        return self

    def __anext__(self):
        return 42


class CloseRaises(Named):
    """The iterator lies about what it has."""

    def run(self):
        return self

    def __aiter__(self):
        return self

    async def __anext__(self):
        return TriggerEvent("from an iterator")

    @property
    def aclose(self):
        raise RuntimeError("no such door")


class _Runs(Named):
    async def run(self):
        yield TriggerEvent("never")


class CtorBaseException(_Runs):
    def __init__(self):
        class Own(BaseException):
            pass

        raise Own("not even an Exception")


class CtorTakesNothing(_Runs):
    def __init__(self, rows):
        raise AssertionError("called without rows")


class CtorRecurses(_Runs):
    def __init__(self):
        self.__init__()


class RefusesAttributes(_Runs):
    def __setattr__(self, name, value):
        raise AttributeError(f"{name} is mine")


class CleanupIsNotThere(Named):
    async def run(self):
        yield TriggerEvent("well")

    @property
    def cleanup(self):
        raise LookupError("no cleanup today")


class CleanupReturnsNone(Named):
    async def run(self):
        yield TriggerEvent("well")

    def cleanup(self):
        return None


class _Refuses:
    def __get__(self, instance, owner):
        raise LookupError("on_stored is not for you")


class OnStoredRefuses(Named):
    on_stored = _Refuses()

    async def run(self):
        yield TriggerEvent("well")


class OnStoredExits(Named):
    async def run(self):
        yield TriggerEvent("well")

    async def on_stored(self):
        sys.exit(11)


class RaisesGeneratorExit(Named):
    async def run(self):
        await asyncio.sleep(0)
        raise GeneratorExit
        yield


class RaisesStopIteration(Named):
    async def run(self):
        raise StopIteration("of my own")
        yield


class RaisesGroup(Named):
    async def run(self):
        raise BaseExceptionGroup("many", [SystemExit(3), ValueError("one of many")])
        yield


class RaisesWithoutEnd(Named):
    """An error that is its own cause, a thousand times over."""

    async def run(self):
        error = ValueError("turtle 0")
        for number in range(1, 3000):
            below, error = error, ValueError(f"turtle {number}")
            error.__cause__ = below
        below.__cause__ = error
        raise error
        yield


class NotesRefuse(Exception):
    @property
    def __notes__(self):
        raise SystemExit("no notes")


class RaisesBadNotes(Named):
    async def run(self):
        raise NotesRefuse("its notes are bad")
        yield


class StrExits(Exception):
    def __str__(self):
        sys.exit(12)

    __repr__ = __str__


class CleanupRaisesUnprintable(Named):
    async def run(self):
        yield TriggerEvent("well")

    async def cleanup(self):
        raise StrExits


class TaskRaisesUnprintable(Named):
    async def run(self):
        async def work():
            raise StrExits

        task = asyncio.ensure_future(work())
        await asyncio.wait([task])
        del task
        yield TriggerEvent("well")


class DelRecurses(Named):
    """Its memory is given back by code that does not end well."""

    async def run(self):
        yield TriggerEvent("well")

    def __del__(self):
        self.__del__()


class RaisesMegabytes(Named):
    async def run(self):
        raise ValueError("x" * 50_000_000)
        yield
