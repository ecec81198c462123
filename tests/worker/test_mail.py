"""Outcomes and answers while the database is away, or refuses one of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import anyio
import pytest
from sqlalchemy.exc import OperationalError

from roost.models.engine import is_passing
from roost.support.doorbell import Doorbell
from roost.support.service import Patience
from roost.support.task_requests import Reply, VariableGet
from roost.support.wire import Outcome
from roost.worker.attendant import Asked, Ended
from roost.worker.ledger import Ledger
from roost.worker.mail import Inquiries, Outbox
from tests.worker.driving import make_spec


class FakeLedger:
    """Away for the first calls; refuses everything that concerns dispatch 13."""

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.stored: list[Ended] = []

    def store(self, ended: Sequence[Ended]) -> int:
        self._check([one.spec.dispatch_id for one in ended if one.outcome.kind == "success"])
        self.stored += ended
        return len(ended)

    def answer(self, asked: Sequence[Asked]) -> list[Reply]:
        self._check([one.spec.dispatch_id for one in asked])
        return [Reply(text=str(one.spec.dispatch_id)) for one in asked]

    def _check(self, dispatch_ids: list[int]) -> None:
        if self.away:
            self.away -= 1
            raise OperationalError("", {}, sqlite3.OperationalError("database is locked"))
        if 13 in dispatch_ids:
            raise ValueError("unlucky\nand more")


def ended(dispatch_id: int) -> Ended:
    return Ended(make_spec(dispatch_id, "t"), Outcome("success", 1, 2))


def deliver(fake: FakeLedger, batch: list[Ended], run_dir: Path) -> None:
    async def go() -> None:
        with Doorbell(run_dir) as bell:
            outbox = Outbox(cast(Ledger, fake), Patience(is_passing), bell, lambda: False)
            outbox.add(batch)
            async with anyio.create_task_group() as group:
                group.start_soon(outbox.run)
                await outbox.wait_empty()
                assert outbox.dispatch_ids() == set()
                group.cancel_scope.cancel()

    anyio.run(go)


def test_outcomes_wait_while_the_database_is_away(tmp_path: Path) -> None:
    """Reliability 2a, DB: running tasks survive an outage; nothing is lost or stored twice."""
    fake = FakeLedger(away=3)
    deliver(fake, [ended(1), ended(2)], tmp_path)
    assert [one.spec.dispatch_id for one in fake.stored] == [1, 2]


def test_an_outcome_that_is_refused_fails_alone(tmp_path: Path) -> None:
    fake = FakeLedger()
    deliver(fake, [ended(12), ended(13), ended(14)], tmp_path)
    kinds = {one.spec.dispatch_id: one.outcome.kind for one in fake.stored}
    assert kinds == {12: "success", 13: "failed", 14: "success"}
    [refused] = [one.outcome for one in fake.stored if one.outcome.kind == "failed"]
    assert refused.error == "the task's result cannot be stored: 'unlucky'"


@pytest.mark.parametrize("away", [0, 2])
def test_a_request_that_is_refused_fails_alone(away: int) -> None:
    replies: dict[int, Reply] = {}

    async def go() -> None:
        done = anyio.Event()

        def reply(dispatch_id: int, answer: Reply) -> None:
            replies[dispatch_id] = answer
            if len(replies) == 3:
                done.set()

        fake = cast(Ledger, FakeLedger(away))
        inquiries = Inquiries(fake, Patience(is_passing), reply)
        inquiries.add([Asked(make_spec(id_, "t"), VariableGet("v")) for id_ in (12, 13, 14)])
        async with anyio.create_task_group() as group:
            group.start_soon(inquiries.run)
            await done.wait()
            group.cancel_scope.cancel()

    anyio.run(go)
    assert replies == {12: Reply(text="12"), 13: Reply(error="unlucky"), 14: Reply(text="14")}
