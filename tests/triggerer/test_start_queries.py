"""Triggers that tasks start in, as a triggerer reads and turns them, on both databases (D12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roost.models.engine import Tx, open_engine, transact
from roost.models.queries import jobs, timers, trigger_events, trigger_specs, triggers
from roost.support.processes import me
from roost.support.trigger_wire import TriggerReport
from roost.support.wire import DeferSpec
from tests.triggerer.world import World

Run = Callable[[Callable[[Tx], Any]], Any]
CODE = """
from roost.dag.trigger import BaseTrigger, TriggerEvent
class Waits(BaseTrigger):
    def serialize(self): return ("Waits", {})
    async def run(self): yield TriggerEvent()
"""
WAITS: dict[str, Any] = {"cls": "Waits"}


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    return World(database_url, tmp_path, CODE)


@pytest.fixture
def run(database_url: str) -> Iterator[Run]:
    engine = open_engine(database_url)
    yield lambda step: transact(engine, step)
    engine.dispose()


def join(run: Run) -> int:
    return int(run(lambda tx: jobs.register(tx, "triggerer", me(), "run")))


def test_what_starts_in_a_trigger_is_given_with_its_run_d12(world: World, run: Run) -> None:
    """Also one whose text is broken: it fails its own task, in the runner."""
    job_id = join(run)
    start = '{"kwargs": {"path": "{{ ds }}"}, "operator": "Op", "max_tries": 3}'
    first, broken, plain = world.defer([WAITS | {"start": one} for one in (start, "{", None)])
    run(lambda tx: triggers.claim(tx, job_id, 10))
    specs = run(lambda tx: trigger_specs.specs(tx, job_id, [first, broken, plain]))
    found = {one.trigger_id: one for one in specs}
    assert found[plain].start is None
    made_of = found[first].start
    assert made_of is not None
    assert made_of.task is not None
    assert bytes(made_of.kwargs) == b'{"path": "{{ ds }}"}'
    assert (made_of.task.dag_id, made_of.task.run_id, made_of.task.max_tries) == ("waits", "r", 3)
    assert made_of.task.dispatch_id == first
    assert found[broken].start is not None


def test_only_the_claim_in_force_turns_a_trigger_into_a_row_d12(world: World, run: Run) -> None:
    old, new = join(run), join(run)
    number, other = world.defer([WAITS | {"start": "{}"}, WAITS | {"start": "{}"}])
    run(lambda tx: triggers.claim(tx, old, 10))
    stale = run(lambda tx: triggers.held(tx, old))[number]
    run(lambda tx: triggers.release(tx, old))
    claims = run(lambda tx: triggers.claim(tx, new, 10))
    spec = DeferSpec("timer", "T", "t:T", msgspec.Raw(b"{}"), None, msgspec.Raw(b"{}"), due_at=5)

    def turn(job_id: int, trigger_id: int, epoch: int) -> Any:
        report = TriggerReport(trigger_id, epoch, "row", row=spec)
        return run(lambda tx: trigger_events.store(tx, job_id, [report], 7))

    assert turn(old, number, stale) == []
    assert turn(old, number, claims[number]) == []
    assert turn(new, number, stale) == []
    assert turn(new, number, claims[number]) == [number]
    (row,) = world.rows("SELECT * FROM trigger WHERE id = :id", id=number)
    assert (row["lane"], row["due_at"], row["job_id"], row["start"]) == ("timer", 5, None, None)
    assert row["next_method"] is None
    assert run(lambda tx: timers.fire_timers(tx, 6, 10)) == 1
    assert world.events()[number]["kind"] == "end_success"
    assert world.count(f"id = {other} AND lane = 'poll'") == 1
