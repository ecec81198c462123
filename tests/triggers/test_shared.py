"""What polls of a runner share, one after the other."""

from __future__ import annotations

import asyncio

import pytest

from roost.triggers import shared
from roost.triggers.shared import Shared, lend


class Thing(Shared):
    """Tells when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    async def close(self) -> None:
        self.closed.set()


async def make() -> Thing:
    return Thing()


def test_it_is_kept_for_the_next_and_another_where_it_depends_on_other_things() -> None:
    async def main() -> None:
        async with lend(Thing, "a", make) as one:
            pass
        async with lend(Thing, "a", make) as again, lend(Thing, "b", make) as other:
            assert again is one
            assert other is not one
        assert not one.closed.is_set()

    asyncio.run(main())


def test_what_nobody_has_used_for_a_while_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection would stay open for as long as the runner lives."""
    monkeypatch.setattr(shared, "IDLE_S", 0.0)

    async def main() -> None:
        async with lend(Thing, "a", make) as one:
            pass
        await asyncio.wait_for(one.closed.wait(), 20)
        async with lend(Thing, "a", make) as other:
            assert other is not one

    asyncio.run(main())
