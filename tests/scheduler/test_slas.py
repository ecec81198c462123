"""SLA misses: which there are, and who is told, once (S100-S105)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest

from roost.dag.model import DagCallbackName, SerializedTask
from roost.scheduler.chores.sla import SlaWatch
from roost.scheduler.daemon import SchedulerDaemon
from roost.support.clock import SECOND
from roost.support.config import load_config
from tests.scheduler.hands import DAY, START, World, dag, failed, ok, skipped, task

HOUR = 3600 * SECOND
MIDNIGHT = START - START % DAY
NOTIFY: list[DagCallbackName] = ["sla_miss"]


def daily(world: World, *tasks: SerializedTask, **knobs: Any) -> SlaWatch:
    """A DAG ``d`` that runs at midnight, and its first run, of yesterday; noon is now."""
    knobs = {"schedule": "@daily", "start_date": MIDNIGHT - DAY, "catchup": True, **knobs}
    world.store(dag("d", *tasks, **knobs))
    world.turns()
    return SlaWatch(world.engine, world.clock)


def missed(world: World) -> list[tuple[str, int]]:
    """Task and day of each miss, days counted from yesterday."""
    rows = world.fetch("SELECT task_id, logical_date FROM sla_miss ORDER BY logical_date, task_id")
    return [(row.task_id, (row.logical_date - MIDNIGHT + DAY) // DAY) for row in rows]


def told(world: World, watch: SlaWatch) -> list[str]:
    """Look, and let the worker run what follows."""
    watch.look()
    return world.calls()


def test_s100_a_miss_is_counted_from_the_end_of_the_interval(world: World) -> None:
    """S100: following_schedule(logical_date) + sla < now; not a moment before."""
    watch = daily(world, task("late", sla_us=12 * HOUR), task("early", sla_us=13 * HOUR))
    watch.look()
    assert missed(world) == []  # noon exactly
    world.clock.advance(1)
    watch.look()
    assert missed(world) == [("late", 0)]
    world.clock.advance(3600)
    watch.look()
    assert missed(world) == [("early", 0), ("late", 0)]


def test_s100_success_and_skip_in_time_are_no_miss(world: World) -> None:
    """S100: only what has not succeeded; skipped counts as success."""
    sla: dict[str, Any] = {"sla_us": 13 * HOUR}
    watch = daily(world, task("good", **sla), task("mum", **sla), task("bad", **sla), task("none"))
    world.work(mum=skipped(), bad=failed())
    world.clock.advance(2 * 3600)
    watch.look()
    assert missed(world) == [("bad", 0)]


def test_s100_only_from_the_last_success_onward(world: World) -> None:
    """S100: runs before the task's last success or skip are history."""
    watch = daily(world, task("a", sla_us=HOUR), max_active_runs=5)
    world.clock.advance(2 * 86_400)
    world.turns()
    claimed = sorted(world.claim(), key=lambda one: one.logical_date or 0)
    assert len(claimed) == 3
    world.end(claimed[0], failed())
    world.end(claimed[1], ok())
    world.turns()
    watch.look()
    assert missed(world) == [("a", 2)]


def test_s101_a_miss_is_stored_once_with_all_that_is_asked_for(world: World) -> None:
    """S101: task, DAG, logical date, time, and whether somebody was told."""
    watch = daily(world, task("a", sla_us=HOUR), callbacks=NOTIFY)
    watch.look()
    watch.look()
    (row,) = world.fetch("SELECT * FROM sla_miss")
    assert (row.dag_id, row.task_id, row.logical_date) == ("d", "a", MIDNIGHT - DAY)
    assert row.timestamp == world.clock.now
    assert (bool(row.email_sent), bool(row.notification_sent)) == (False, True)


def test_s103_the_callback_is_told_once_of_each_miss(world: World) -> None:
    """S103: once, with the missed and the blocking tasks; a later miss is told of again."""
    watch = daily(world, task("a", "b", sla_us=HOUR), task("b"), callbacks=NOTIFY)
    watch.look()
    world.claim()
    (spec,) = world.called.values()
    assert (spec.kind, spec.name) == ("sla", "sla_miss")
    detail = msgspec.json.decode(spec.detail)
    assert [row[0] for row in detail["missed"]] == ["a"]
    assert [(row[0], row[2]) for row in detail["blocking"]] == [("a", "queued"), ("b", "none")]
    assert world.calls() == ["sla sla_miss 1 missed"]
    assert told(world, watch) == []
    world.clock.advance(86_400)
    world.turns()
    assert told(world, watch) == ["sla sla_miss 1 missed"]


def test_s102_a_mail_goes_to_the_missed_tasks_addresses(world: World) -> None:
    """S102: one mail for all of them, beside the callback; nobody without an address."""
    mailed = task("a", sla_us=HOUR, email=["ann@example.org"])
    watch = daily(world, mailed, task("b", sla_us=HOUR), task("c"), callbacks=NOTIFY)
    assert sorted(told(world, watch)) == ["sla email 2 missed", "sla sla_miss 2 missed"]
    rows = world.fetch("SELECT task_id, email_sent FROM sla_miss ORDER BY task_id")
    assert [(row.task_id, bool(row.email_sent)) for row in rows] == [("a", True), ("b", False)]


def test_s101_a_miss_that_nobody_wants_to_hear_of_is_stored(world: World) -> None:
    """S101: neither callback nor address: it is listed, and nothing is dispatched."""
    watch = daily(world, task("a", sla_us=HOUR))
    assert told(world, watch) == []
    (row,) = world.fetch("SELECT * FROM sla_miss")
    assert not row.notification_sent


def test_s105_only_scheduled_runs(world: World) -> None:
    """S105: a run by hand has no period to be late for."""
    watch = daily(world, task("a", sla_us=HOUR))
    world.work()
    world.trigger("d")
    world.turns()
    world.clock.advance(3 * 3600)
    watch.look()
    assert missed(world) == []


def test_s100_only_with_a_schedule(world: World) -> None:
    """S100: None and @once have no following moment."""
    for schedule in (None, "@once"):
        daily(world, task("a", sla_us=0), schedule=schedule)
        world.clock.advance(86_400)
        SlaWatch(world.engine, world.clock).look()
    assert missed(world) == []


def test_s100_a_paused_dag_is_not_looked_at(world: World) -> None:
    """S100: its runs stand still because somebody said so."""
    watch = daily(world, task("a", sla_us=HOUR))
    world.pause("d")
    watch.look()
    assert missed(world) == []
    world.pause("d", False)
    watch.look()
    assert missed(world) == [("a", 0)]


def test_s100_a_dag_without_sla_costs_one_statement(world: World) -> None:
    """S100: versions are read once, and one without an sla is never looked at again."""
    watch = daily(world, task("a"))
    watch.look()
    assert list(watch._known.values()) == [None]


def test_s104_check_slas_off_looks_at_nothing() -> None:
    """S104: [core] check_slas = false disables them globally."""

    class Looked(Exception):
        pass

    async def until_done(_step: object) -> None:
        raise Looked

    def daemon(check: bool) -> Any:
        config = SimpleNamespace(core=SimpleNamespace(check_slas=check))
        patience = SimpleNamespace(until_done=until_done)
        return SimpleNamespace(_config=config, _engine=None, _patience=patience)

    with pytest.raises(Looked):
        anyio.run(SchedulerDaemon._check_slas, daemon(True))
    anyio.run(SchedulerDaemon._check_slas, daemon(False))
    assert load_config({"ROOST_HOME": "/nowhere"}).core.check_slas
