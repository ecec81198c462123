"""A scheduler that crashes, forgets, or is declared dead: nothing is lost, nothing is doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from roost.scheduler.loop import LeaseLost
from roost.support.clock import SECOND
from tests.scheduler.hands import World, dag, deferred, failed, ok, task
from tests.support.databases import Databases
from tests.support.reused import empty
from tests.support.statements import watching


def busy(world: World) -> None:
    """A world in which the next turn does everything a turn can do."""
    world.pool("p", 2, deferred_percent=100)
    world.store(
        dag(
            "d",
            task("branch", "left right"),
            task("left"),
            task("right", "end"),
            task("fails", "after", retries=0),
            task("after"),
            task("retries", retries=1, retry_delay_us=60 * SECOND),
            task("defers", pool="p"),
            task("waits", pool="p"),
            task("lost"),
            task("times", retries=1, retry_delay_us=0),
            task("due", retries=1, retry_delay_us=10 * SECOND),
            task("end", "empty", trigger_rule="none_failed"),
            task("empty", empty=True),
            max_active_tasks=50,
        ),
        dag("short", task("only"), max_active_runs=1),
        dag(
            "cron",
            task("a", empty=True),
            schedule="@hourly",
            start_date=world.clock.now - 3600 * SECOND,
        ),
        paused=False,
    )
    world.trigger("d")
    world.trigger("short")
    world.trigger("short")
    world.turns()
    claimed = {one.task_id: one for one in world.claim()}
    world.end(claimed["waits"], deferred())
    world.end(claimed["times"], deferred(timeout_s=10))
    world.end(claimed["due"], failed())
    world.turns()
    # From here on nobody has settled anything.
    lost = claimed.pop("lost")
    world.end_all(
        {
            claimed["branch"].id: ok(skip=["left"]),
            claimed["fails"].id: failed(),
            claimed["retries"].id: failed(),
            claimed["defers"].id: deferred(timeout_s=600),
            claimed["only"].id: ok(),
        }
    )
    world.execute(
        "UPDATE dispatch SET ended_at = 1, outcome = :o WHERE id = :i",
        o='{"kind":"lost","started_at":1,"ended_at":1}',
        i=lost.id,
    )
    world.held.pop(lost.id)
    world.fire("waits", 1)
    world.clock.advance(10)
    world.trigger("d")


_STATES = (
    "SELECT r.dag_id, r.run_id, t.task_id, t.state, t.try_number, t.losses, t.version "
    "FROM task_instance t JOIN dag_run r ON r.id = t.dag_run_id ORDER BY 1, 2, 3"
)
_USERS_LOG_ROW = (
    "INSERT INTO event_log (at, actor, event, dag_run_id, ti_id, ti_version, try_number, "
    "from_state, to_state, reason) VALUES (0, 'user', 'skip', :r, :i, 1, 0, 'none', "
    "'skipped', 'marked')"
)
_RUNS = "SELECT dag_id, run_id, state FROM dag_run ORDER BY 1, 2"


def outcome(world: World) -> list[Any]:
    """What everything came to, whatever the ids."""
    return [tuple(row) for row in world.fetch(_STATES) + world.fetch(_RUNS)]


def finish(world: World) -> None:
    """Let everything that still waits go well."""
    for _ in range(30):
        world.turns()
        claimed = world.claim()
        world.end_all(dict.fromkeys(world.held, ok()))
        if world.pending_triggers():
            world.fire_all()
        elif not claimed:
            world.clock.advance(61)
            if not world.fetch("SELECT 1 AS x FROM dag_run WHERE end_date IS NULL"):
                return
    raise AssertionError(f"runs did not end: {world.states()}")


@contextmanager
def breaking(at: int, error: type[BaseException]) -> Iterator[list[str]]:
    """Raise in the statement number ``at`` (0: the first); collects them."""
    seen: list[str] = []

    def before(statement: str, _parameters: object) -> None:
        if len(seen) == at:
            seen.append("broken")
            raise error("injected")
        seen.append(statement)

    with watching(before):
        yield seen


class Crash(BaseException):
    """The process ends here."""


def reference(make: Callable[[], World]) -> tuple[list[Any], list[Any], int]:
    """The end without any fault, after one turn and at last, and the statements of that turn."""
    world = make()
    busy(world)
    with breaking(-1, Crash) as seen:
        world.turn()
    count = len(seen)
    world.turns()
    after = outcome(world)
    finish(world)
    end = outcome(world)
    world.check()
    world.close()
    return after, end, count


@pytest.mark.timeout(120)
def test_a_crash_at_any_statement_of_a_turn_loses_and_doubles_nothing(database_url: str) -> None:
    def make() -> World:
        empty(database_url)
        return World(database_url)

    after, end, count = reference(make)
    assert count > 20
    step = 1 if database_url.startswith("sqlite") else 3
    for at in range(0, count, step):
        world = make()
        busy(world)
        with breaking(at, Crash), pytest.raises(Crash):
            world.turn()
        world.check()
        world.turns()
        world.check()
        assert outcome(world) == after, f"crash at statement {at}"
        if at % 7 == 0:
            finish(world)
            assert outcome(world) == end, f"crash at statement {at}"
        world.close()


def test_a_commit_that_succeeds_and_is_reported_as_failed_doubles_nothing(world: World) -> None:
    """The answer to COMMIT never came: the turn is taken again from what the database says."""
    busy(world)
    commit = world.engine.dialect.do_commit

    def lie(connection: Any) -> None:
        commit(connection)
        raise Crash("the connection broke after COMMIT")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.engine.dialect, "do_commit", lie)
        with pytest.raises(Crash):
            world.turn()
    before = outcome(world)
    world.turns()
    world.check()
    assert {row for row in before if "success" in row} <= set(outcome(world))
    finish(world)
    rows = world.fetch("SELECT event, count(*) AS n FROM event_log WHERE ti_id > 0 GROUP BY event")
    assert {row.event: row.n for row in rows}["lose"] == 1


@pytest.mark.parametrize("always", [False, True])
def test_forgetting_at_every_turn_changes_nothing(
    always: bool, databases: Databases, tmp_path: Path
) -> None:
    ends = []
    for forgets in (False, always):
        with databases.sqlite(tmp_path) as url:
            world = World(url)
            if forgets:
                turn = world.turn

                def forgetful(scheduler: int = 0, world: World = world, turn: Any = turn) -> Any:
                    world.schedulers[scheduler].forget()
                    return turn(scheduler)

                world.turn = forgetful  # type: ignore[method-assign]
            busy(world)
            finish(world)
            world.check()
            ends.append(outcome(world))
            world.close()
    assert ends[0] == ends[1]


def test_a_scheduler_that_was_declared_dead_writes_nothing_invariant_s15(world: World) -> None:
    busy(world)
    world.lose_scheduler(0)
    before = outcome(world)
    log = len(world.fetch("SELECT id FROM event_log"))
    for _ in range(3):
        with pytest.raises(LeaseLost):
            world.turn()
    assert outcome(world) == before
    assert len(world.fetch("SELECT id FROM event_log")) == log
    world.schedulers[0].join(world.register("scheduler"))
    finish(world)


def test_its_runs_are_taken_over_with_higher_dispatch_ids_invariant_s2(world: World) -> None:
    world.start(task("a", retries=1, retry_delay_us=0), task("b"))
    before = {one.id for one in world.claim()}
    world.lose_scheduler(0)
    world.schedulers[0].join(world.register("scheduler"))
    world.end_all({id_: failed() for id_ in before})
    world.turns()
    (again,) = world.claim()
    assert again.id > max(before)
    world.end(again, ok())
    world.turns()
    assert world.states() == {"a": "success", "b": "failed"}


def test_a_run_that_others_edited_is_read_again(world: World) -> None:
    """A user skips a task: its row, its log row and the run's mark, in one transaction."""
    run = world.start(task("a", "b"), task("b", "c", trigger_rule="all_done"), task("c"))
    world.claim()
    (b,) = world.fetch("SELECT id FROM task_instance WHERE task_id = 'b'")
    world.execute("UPDATE task_instance SET state = 'skipped', version = 1 WHERE id = :i", i=b.id)
    world.execute(_USERS_LOG_ROW, i=b.id, r=run)
    world.execute("UPDATE dag_run SET changed = :t WHERE id = :r", r=run, t=True)
    world.turns()
    assert world.states() == {"a": "running", "b": "skipped", "c": "skipped"}
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    assert world.run_state(run) == "success"


def test_a_decision_that_the_database_refuses_is_taken_again(world: World) -> None:
    """The user's edit commits while the scheduler, unaware, decides on its own board."""
    run = world.start(task("a", "b"), task("b"))
    (a,) = world.claim()
    (b,) = world.fetch("SELECT id FROM task_instance WHERE task_id = 'b'")
    world.execute("UPDATE task_instance SET state = 'skipped', version = 1 WHERE id = :i", i=b.id)
    world.execute(_USERS_LOG_ROW, i=b.id, r=run)
    world.end(a, failed())
    world.turns()
    assert world.states() == {"a": "failed", "b": "skipped"}
    assert world.run_state(run) == "success"  # its leaf was skipped


def test_a_passing_conflict_costs_a_turn_and_nothing_else(world: World) -> None:
    busy(world)

    class Conflict(DBAPIError):
        def __init__(self, *_: object) -> None:
            super().__init__("s", None, Exception("40001"))

    with breaking(9, Conflict), pytest.raises(DBAPIError):
        world.turn()
    world.check()
    finish(world)


def test_counters_that_are_wrong_are_counted_anew_at_a_start_invariant_s8_s9(world: World) -> None:
    """Whatever spoilt them: they would keep tasks and runs out, or let too many in, for ever."""
    world.pool("p", 2, deferred_percent=100)
    world.store(dag("d", task("a", pool="p"), task("b", pool="p"), max_active_runs=2))
    world.trigger("d")
    world.turns()
    claimed = {one.task_id: one for one in world.claim()}
    world.end(claimed["a"], deferred())
    world.turns()
    world.execute("UPDATE pool SET used = 0")
    world.execute("UPDATE dag_usage SET runs = 0")
    world.schedulers[0].forget()
    world.turns()
    world.check()
    assert world.used("p") == 2
    world.end(claimed["b"], ok())
    world.fire_all()
    world.turns()
    world.work()
    assert (world.used("p"), world.states()["a"]) == (0, "success")
