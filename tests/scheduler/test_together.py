"""Many waits that end at the same moment: a few statements, and each has an outcome of its own."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from roost.models.queries import inbox
from roost.support.clock import SECOND
from tests.scheduler.hands import OutcomeOf, World, dag, deferred, failed, task
from tests.support.statements import watching

_XCOMS = '[{"key": "rows", "value": 42, "length": null}]'
_WISHES = ("retry", "fail", "skip")


@pytest.fixture
def wide(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world with room for hundreds of tasks, whose turns take all events at once."""
    monkeypatch.setattr("roost.scheduler.turn._FIRST_EVENTS", 1_000)
    made = World(database_url, parallelism=1_000)
    made.pool("default_pool", 1_000)
    try:
        yield made
        made.check()
    finally:
        made.close()


def waits(number: int) -> OutcomeOf:
    """A wait for at most 10 s; what follows is told by the number."""
    return deferred(timeout_s=10, on_timeout=_WISHES[number % 3])


def begin(world: World, dag_id: str, size: int) -> list[int]:
    """So many tasks of a new run are at work, half of them with a retry; gives their dispatches."""
    knobs: dict[str, Any] = {"callbacks": ["on_failure", "on_retry", "on_skipped", "on_success"]}
    tasks = [
        task(f"{dag_id}{n}", retries=n % 2, retry_delay_us=60 * SECOND, **knobs)
        for n in range(size)
    ]
    world.store(dag(dag_id, *tasks, max_active_tasks=1_000))
    world.trigger(dag_id)
    world.turns()
    claimed = sorted(world.claim(), key=lambda one: one.ti_id)
    assert len(claimed) == size
    return [one.id for one in claimed]


def statements(world: World) -> list[str]:
    """Take a turn; gives what it sent."""
    sent: list[str] = []
    with watching(lambda text, _: sent.append(text)):
        world.turn()
    return sent


def end(world: World, dispatches: list[int], how: str) -> None:
    """Let what was begun be about to end, each in its way."""
    if how == "failed by workers":
        world.end_all({id_: failed(f"error {n}") for n, id_ in enumerate(dispatches)})
        return
    world.end_all({id_: waits(n) for n, id_ in enumerate(dispatches)})
    world.turns()
    if how == "timed out":
        world.clock.advance(11)
        return
    for number, trigger_id in enumerate(sorted(world.pending_triggers())):
        world.fire_id(trigger_id, kind=how, error=f"error {number}", xcoms=_XCOMS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "how",
    ["timed out", "failed", "end_failed", "end_success", "end_skipped", "failed by workers"],
)
def test_their_statements_do_not_grow_with_their_number_d5_d6_d11(wide: World, how: str) -> None:
    sent = {}
    for size in (6, 200):
        end(wide, begin(wide, f"by{size}", size), how)
        sent[size] = statements(wide)
        left = wide.fetch("SELECT count(*) AS n FROM task_instance WHERE state = 'deferred'")
        assert left[0].n == 0
        wide.calls()
    assert len(sent[200]) <= len(sent[6]), [s for s in sent[200] if s not in sent[6]]


def test_each_comes_to_its_own_end_d6_h13_h23(wide: World) -> None:
    """Retries by their own delays, reasons, callbacks, XComs, a pool that counts waits."""
    wide.pool("few", 8, deferred_percent=50)
    calls: dict[str, Any] = {"pool": "few", "callbacks": ["on_failure", "on_retry", "on_skipped"]}
    wide.start(
        task("soon", retries=1, retry_delay_us=5 * SECOND, **calls),
        task("late", retries=1, retry_delay_us=60 * SECOND, **calls),
        task("grows", retries=3, retry_delay_us=40 * SECOND, retry_exponential_backoff=True),
        task("fails", "after", **calls),
        task("sensor", retries=1, **calls),
        task("soft", "after", retries=1, **calls),
        task("in_time", **calls),
        task("after", trigger_rule="all_done"),
    )
    for one in wide.claim():
        wide.leave(one, 3)
        wishes = {"sensor": "fail", "soft": "skip"}
        wide.end(one, deferred(timeout_s=30, on_timeout=wishes.get(one.task_id, "retry"), run_us=7))
    wide.turns()
    assert wide.used("few") == 3
    triggers = {row.ti_id: row.id for row in wide.fetch("SELECT id, ti_id FROM trigger")}
    wide.clock.advance(30)
    wide.fire("in_time", 1)
    ended = wide.turn().ended
    wide.turns()
    now = wide.clock.now
    assert wide.states() == {
        "soon": "up_for_retry",
        "late": "up_for_retry",
        "grows": "up_for_retry",
        "fails": "failed",
        "sensor": "failed",
        "soft": "skipped",
        "in_time": "queued",
        "after": "queued",
    }
    assert dict(ended) == {
        ("d", name, state): 1
        for name, state in wide.states().items()
        if name not in ("in_time", "after")
    }
    assert wide.row("soon").retry_at == now + 5 * SECOND
    assert wide.row("late").retry_at == now + 60 * SECOND
    assert now + 40 * SECOND <= wide.row("grows").retry_at < now + 80 * SECOND
    for name in ("soon", "fails", "soft"):
        row = wide.row(name)
        assert (row.end_date, row.run_us) == (now, 7)
        (told,) = wide.fetch(
            "SELECT reason, trigger_id, at FROM event_log WHERE ti_id = :t AND to_state = :s",
            t=row.id,
            s=row.state,
        )
        assert told.trigger_id == triggers[row.id]
        assert f"no event of trigger {triggers[row.id]} in time" in told.reason
    assert wide.used("few") == 1  # of the one that goes on
    assert wide.fetch("SELECT * FROM trigger") == []
    # A skipped task leaves what it left; a try that failed leaves nothing (S16).
    left = wide.fetch("SELECT t.task_id FROM xcom x JOIN task_instance t ON t.id = x.ti_id")
    assert sorted(row.task_id for row in left) == ["in_time", "soft"]
    assert sorted(call.partition(" the ")[0] for call in wide.calls()) == [
        "task fails on_failure failed",
        "task late on_retry up_for_retry",
        "task sensor on_failure failed",
        "task soft on_skipped skipped",
        "task soon on_retry up_for_retry",
    ]


def test_time_outs_are_taken_in_slices_and_other_work_goes_on_between_them(
    wide: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No turn holds its locks for all of them; the first slice is through while others wait."""
    monkeypatch.setattr("roost.scheduler.steps.alarms._MOST", 8)
    end(wide, begin(wide, "d", 20), "timed out")
    wide.trigger("d")
    turns = []
    while (report := wide.turn()).ended:
        turns.append((sum(report.ended.values()), len(report.handoffs), report.more))
    assert [ended for ended, _, _ in turns] == [8, 8, 4]
    assert [more for _, _, more in turns[:2]] == [True, True]
    assert sum(handed for _, handed, _ in turns[:2]) == 20  # the tasks of the new run


def test_large_events_are_taken_in_several_turns(
    wide: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D3: a turn has a bound in bytes, too, but always takes one; oldest first, and at once."""
    monkeypatch.setattr("roost.scheduler.steps.deferral._MOST_BYTES", 10_000)
    wide.end_all({id_: deferred() for id_ in begin(wide, "d", 12)})
    wide.turns()
    sizes = (1, 1, 25_000, 3_000, 3_000, 3_000, 3_000, 1, 1, 1, 1, 1)
    waiting = sorted(wide.pending_triggers())
    for trigger_id, size in zip(waiting, sizes, strict=True):
        wide.fire_id(trigger_id, "ä" * (size // 2))
    stored = "SELECT trigger_id FROM trigger_event ORDER BY trigger_id"
    left = []
    while wide.turn().more:
        left.append([row.trigger_id for row in wide.fetch(stored)])
    assert left == [waiting[3:], waiting[7:]]
    assert wide.fetch(stored) == []
    assert set(wide.states().values()) == {"queued"}


def test_events_that_are_not_taken_are_not_read(wide: World) -> None:
    """Of 48 MiB of events a scheduler has no more in memory than a turn is to take."""
    wide.end_all({id_: deferred() for id_ in begin(wide, "d", 48)})
    wide.turns()
    for trigger_id in sorted(wide.pending_triggers()):
        wide.fire_id(trigger_id, "x" * (1 << 20))
    (job_id,) = {row.job_id for row in wide.fetch("SELECT job_id FROM dag_run")}
    tracemalloc.start()
    try:
        fired, cut = wide.transact(lambda tx: inbox.fired_triggers(tx, job_id, 1_000, 4 << 20))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(fired), cut) == (4, True)
    assert most < 16 << 20


def test_waits_whose_event_is_stored_do_not_hold_up_time_outs(
    wide: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a slice have their event, which no turn can read yet."""
    monkeypatch.setattr("roost.scheduler.steps.alarms._MOST", 4)
    monkeypatch.setattr(
        "roost.scheduler.steps.deferral.inbox.fired_triggers", lambda *_: ([], False)
    )
    dispatches = begin(wide, "d", 10)
    wide.end_all({id_: waits(0) for id_ in dispatches})
    wide.turns()
    for trigger_id in sorted(wide.pending_triggers())[:9]:
        wide.fire_id(trigger_id)
    wide.clock.advance(10)
    for _ in range(3):
        wide.turn()
    assert sorted(wide.states().values()) == ["deferred"] * 9 + ["up_for_retry"]


def test_the_alarm_of_a_former_wait_beside_that_of_the_last(wide: World) -> None:
    """Both are due in one turn: the run was read again, or the scheduler was away."""
    wide.start(task("a", retries=1, retry_delay_us=0))
    wide.work(a=deferred(timeout_s=30))
    wide.fire("a")
    wide.turns()
    wide.work(a=deferred(timeout_s=10, on_timeout="skip"))
    wide.clock.advance(30)
    wide.turns()
    assert wide.log("a").count("end_skipped") == 1
    assert wide.states() == {"a": "skipped"}
