"""Triggers whose events no database can store, or are odd."""

# mypy: ignore-errors

import datetime


class Infinite(Named):
    async def run(self):
        yield TriggerEvent({"rate": float("-inf")})


class NulKey(Named):
    async def run(self):
        yield TriggerEvent({"a\0b": 1})


class Deep(Named):
    async def run(self):
        inner = []
        for _ in range(100_000):
            inner = [inner]
        yield TriggerEvent(inner)


class HugeInt(Named):
    async def run(self):
        yield TriggerEvent(10**5000)


class NumberKey(Named):
    async def run(self):
        yield TriggerEvent({1: "one"})


class Items(dict):
    def items(self):
        raise OSError("the items are elsewhere")

    __iter__ = keys = values = items


class LyingDict(Named):
    async def run(self):
        yield TriggerEvent(Items(a=1))


class Text(str):
    def __str__(self):
        raise OSError("the text is elsewhere")

    encode = __str__


class LyingText(Named):
    async def run(self):
        yield TriggerEvent(Text("plain"))


class OddDatetime(Named):
    async def run(self):
        class Odd(datetime.tzinfo):
            def utcoffset(self, moment):
                raise OSError("no offset")

        yield TriggerEvent(datetime.datetime(2024, 1, 1, tzinfo=Odd()))


class Generator(Named):
    async def run(self):
        yield TriggerEvent(number for number in range(3))


class ManyItems(Named):
    async def run(self):
        yield TriggerEvent([0] * 5_000_000)


class PayloadRaises(Named):
    async def run(self):
        class Event(TriggerEvent):
            payload = property(lambda self: 1 / 0, lambda self, value: None)

        yield Event(1)


class Raw(Named):
    async def run(self):
        yield TriggerEvent(b"\xff\x00" * 8)


class MemoryHog(Named):
    async def run(self):
        yield TriggerEvent(bytearray(1 << 60))


class ManyXComs(Named):
    async def run(self):
        text = "x" * 1_000_000
        yield TaskSuccessEvent(xcoms={f"part {number}": text for number in range(70)})
