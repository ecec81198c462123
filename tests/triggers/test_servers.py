"""What triggers of one server share: the hub, its patience, the client library."""

from __future__ import annotations

import asyncio
import logging

import pytest

from roost.exceptions import RoostException
from roost.triggerer.case import CURRENT
from roost.triggerer.steps import task_factory
from roost.triggers import servers
from roost.triggers.servers import (
    Hub,
    Patience,
    client_library,
    end_task,
    join,
    leave,
    one_line,
    start_task,
)


class Counted(Hub):
    """Counts how often it was made and closed."""

    made = 0
    closed = 0

    def __init__(self, key: str) -> None:
        super().__init__(key)
        Counted.made += 1

    async def close(self) -> None:
        Counted.closed += 1


def test_a_hub_lives_from_its_first_user_to_its_last() -> None:
    async def main() -> None:
        one, two, other = join(Counted, "a"), join(Counted, "a"), join(Counted, "b")
        assert one is two
        assert other is not one
        one.spent = True  # it has failed: who comes now gets another one
        assert join(Counted, "a") is not one
        for hub in (one, two, other):
            await leave(hub)
        assert (Counted.made, Counted.closed) == (3, 2)

    asyncio.run(main())


class Keeping(Hub):
    """Keeps a task going that is no trigger's, as those with a connection do."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.task: asyncio.Task[None] = start_task(asyncio.sleep(3600), f"keeping-{key}")

    async def close(self) -> None:
        await end_task(self.task)


def test_the_last_trigger_to_leave_ends_what_the_hub_has_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """D9: in a runner, where no trigger may cancel tasks that are not its own."""

    async def trigger() -> asyncio.Task[None]:
        CURRENT.set(7)
        hub = join(Keeping, "a")
        await asyncio.sleep(0)
        await leave(hub)
        return hub.task

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(task_factory)
        assert (await loop.create_task(trigger(), name="trigger-7")).cancelled()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert "not its own" not in caplog.text


def test_the_trouble_of_many_is_one_pause(caplog: pytest.LogCaptureFixture) -> None:
    """Fifty triggers that lose their server do not wait fifty times as long, or say it as often."""

    async def main() -> None:
        patience = Patience("mq")
        for pause in ("0.2 s", "0.4 s"):
            caplog.clear()
            await asyncio.gather(*[patience.wait(OSError("gone\naway")) for _ in range(50)])
            (record,) = caplog.records
            said = f"connection 'mq': gone away; trying again in {pause}"
            assert record.getMessage() == said
        patience.reached()
        caplog.clear()
        await patience.wait(OSError("again"))
        assert "trying again in 0.2 s" in caplog.text

    with caplog.at_level(logging.WARNING, "roost.triggers.servers"):
        asyncio.run(main())


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PATIENCE_S", -1.0)
    with pytest.raises(RoostException, match=r"connection 'mq': not reached for .*: gone"):
        asyncio.run(Patience("mq").wait(OSError("gone")))


def test_a_missing_client_library_says_what_to_install() -> None:
    with pytest.raises(RoostException, match=r"pip install 'roost\[redis\]'"):
        asyncio.run(client_library("no_such_library", "redis"))


def test_one_line_of_any_error() -> None:
    assert one_line(OSError(" a\n\n b ")) == "a b"
    assert one_line(TimeoutError()) == "TimeoutError"
