"""The one writer of state: only what the table of moves allows, one log row a move.

By invariants S2, S4.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from roost.models import tables
from roost.models.engine import open_engine, transact
from roost.models.states import FINISHED, MOVES, RUN_MOVES, Event, RunEvent, RunState, State
from roost.models.transitions import (
    Moved,
    NewRun,
    create_run,
    create_task_instances,
    move,
    move_runs,
)

TI, LOG = tables.task_instance, tables.event_log


def add(engine: Engine, run_key: int, states: Sequence[str], **columns: Any) -> list[int]:
    """Task instances in these states; gives their ids."""
    rows = [
        {"dag_run_id": run_key, "task_id": f"t{n}", "state": state, **columns}
        for n, state in enumerate(states)
    ]
    with engine.begin() as db:
        db.execute(sa.insert(TI), rows)
        return list(db.execute(sa.select(TI.c.id).order_by(TI.c.id)).scalars())[-len(rows) :]


def rows(engine: Engine, table: sa.Table) -> list[Any]:
    with engine.begin() as db:
        return list(db.execute(sa.select(table).order_by(table.c.id)).all())


def moves(engine: Engine, events: Any, wanted: Any, **more: Any) -> list[Moved]:
    return transact(engine, lambda tx: move(tx, events, wanted, actor="test", **more))


def test_every_state_and_event_allows_only_what_the_table_says_invariant_s4(
    engine: Engine, run_key: int
) -> None:
    cases = list(product(State, Event))
    ids = add(engine, run_key, [state for state, _ in cases])
    for ti_id, (state, event) in zip(ids, cases, strict=True):
        origins, _ = MOVES[event]
        moved = moves(engine, event, [{"id": ti_id}])
        assert [one.id for one in moved] == ([ti_id] if state in origins else []), (state, event)
        if moved:
            assert moved[0].version == 1
            assert moved[0].prev_state == state
    expected = {
        ti_id: (MOVES[event][1] if state in MOVES[event][0] else state)
        for ti_id, (state, event) in zip(ids, cases, strict=True)
    }
    assert {row.id: row.state for row in rows(engine, TI)} == expected
    logged = {(row.ti_id, row.event, row.from_state, row.to_state) for row in rows(engine, LOG)}
    assert logged == {
        (ti_id, event, state, MOVES[event][1])
        for ti_id, (state, event) in zip(ids, cases, strict=True)
        if state in MOVES[event][0]
    }


BY_USERS = {Event.CLEAR, Event.MARK_SUCCESS, Event.MARK_FAILED, Event.MARK_SKIPPED, Event.REMOVE}


def test_only_users_make_an_instance_leave_a_final_state_invariant_s5() -> None:
    for event, (origins, _target) in MOVES.items():
        assert not origins & FINISHED or event in BY_USERS, event


def test_a_decision_does_not_move_a_run_that_others_edited(engine: Engine, run_key: int) -> None:
    with engine.begin() as db:
        db.execute(sa.update(tables.dag_run).values(changed=True, state=RunState.RUNNING))
    for event in (RunEvent.SUCCEED, RunEvent.FAIL):
        assert not transact(
            engine, partial(move_runs, event=event, run_keys=[run_key], actor="test")
        )


def test_many_rows_move_in_one_statement_and_only_those_that_may(
    engine: Engine, run_key: int
) -> None:
    states = [State.RUNNING, State.QUEUED, State.RUNNING, State.SUCCESS]
    ids = add(engine, run_key, states)
    wanted = [{"id": ti_id, "end_date": 7} for ti_id in [*ids, 10**9]]
    moved = moves(engine, Event.SUCCEED, wanted, sets=("end_date",))
    assert sorted(one.id for one in moved) == [ids[0], ids[2]]
    assert [row.end_date for row in rows(engine, TI)] == [7, None, 7, None]


def test_a_row_without_its_guard_does_not_move_invariant_s2(engine: Engine, run_key: int) -> None:
    ids = add(engine, run_key, [State.RUNNING] * 3, dispatch_id=5)
    wanted = [{"id": i, "if_dispatch_id": d} for i, d in zip(ids, (4, 5, 6), strict=True)]
    moved = moves(engine, Event.SUCCEED, wanted, guards=("dispatch_id",))
    assert [one.id for one in moved] == [ids[1]]
    assert len(rows(engine, LOG)) == 1


def test_adds_are_added_and_sets_are_set(engine: Engine, run_key: int) -> None:
    (ti_id,) = add(engine, run_key, [State.RUNNING], run_us=40)
    row = {"id": ti_id, "run_us": 2, "trigger_id": 9, "next_method": None}
    moves(engine, Event.DEFER, [row], sets=("trigger_id", "next_method"), adds=("run_us",))
    (now,) = rows(engine, TI)
    assert (now.run_us, now.trigger_id, now.next_method) == (42, 9, None)


def test_a_path_is_one_update_and_a_log_row_for_each_step_invariant_s4(
    engine: Engine, run_key: int
) -> None:
    (ti_id,) = add(engine, run_key, [State.NONE])
    path = (Event.SCHEDULE, Event.ENQUEUE, Event.START, Event.DEFER, Event.RESUME)
    (moved,) = moves(engine, path, [{"id": ti_id, "dispatch_id": 3}], sets=("dispatch_id",))
    assert moved.version == 5
    log = rows(engine, LOG)
    assert [row.event for row in log] == list(path)
    assert [row.ti_version for row in log] == [1, 2, 3, 4, 5]
    assert [row.from_state for row in log] == ["none", *[MOVES[e][1] for e in path[:-1]]]
    assert {row.dispatch_id for row in log} == {3}
    assert rows(engine, TI)[0].state == State.SCHEDULED


@pytest.mark.parametrize(("first", "second"), list(product(Event, Event)))
def test_a_path_must_hang_together(first: Event, second: Event) -> None:
    """No database is touched: a path that does not hang together is a mistake in our code."""

    class Untouched:
        dialect = "sqlite"

        def all(self, *_: object, **__: object) -> list[object]:
            return []

        @staticmethod
        def rows(_rows: object) -> str:
            return "[]"

    fits = MOVES[first][1] in MOVES[second][0]
    tx: Any = Untouched()
    if fits:
        assert move(tx, (first, second), [{"id": 1}], actor="test") == []
    else:
        with pytest.raises(ValueError, match="cannot follow"):
            move(tx, (first, second), [{"id": 1}], actor="test")


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(events=st.lists(st.sampled_from(Event), max_size=25))
def test_any_history_is_gap_free_invariant_s4(
    engine: Engine, run_key: int, events: list[Event]
) -> None:
    with engine.begin() as db:
        db.execute(sa.delete(TI))
        db.execute(sa.delete(LOG))
    (ti_id,) = add(engine, run_key, [State.NONE])
    state = State.NONE
    for event in events:
        origins, target = MOVES[event]
        if moves(engine, event, [{"id": ti_id}]):
            assert state in origins
            state = target
        else:
            assert state not in origins
    log = rows(engine, LOG)
    assert [row.ti_version for row in log] == list(range(1, len(log) + 1))
    assert all(before.to_state == after.from_state for before, after in pairwise(log))
    (now,) = rows(engine, TI)
    assert (now.state, now.version) == (state, len(log))


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_rival_writers_win_disjoint_rows(engine: Engine, database_url: str, run_key: int) -> None:
    """Each of 600 rows is won by one of four writers, and logged once (invariant S4)."""
    ids = add(engine, run_key, [State.RUNNING] * 600)
    # None of their targets is another one's origin: a row that one has won no other may move on.
    events = (Event.SUCCEED, Event.FAIL, Event.RETRY, Event.END_SKIPPED)

    def write(number: int) -> set[int]:
        own = open_engine(database_url)
        try:
            order = ids if number % 2 else ids[::-1]
            won: set[int] = set()
            for start in range(0, len(order), 50):
                batch = [{"id": i} for i in sorted(order[start : start + 50])]
                done = moves(own, events[number], batch)
                won.update(one.id for one in done)
            return won
        finally:
            own.dispose()

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(write, range(4)))
    assert set().union(*won) == set(ids)
    assert sum(map(len, won)) == len(ids)
    assert len(rows(engine, LOG)) == len(ids)
    state_of = {row.id: row.state for row in rows(engine, TI)}
    for number, mine in enumerate(won):
        assert {state_of[ti_id] for ti_id in mine} <= {MOVES[events[number]][1]}


def test_runs_move_only_as_their_table_says(engine: Engine, run_key: int) -> None:
    version = rows(engine, tables.dag_run)[0].version_id
    cases = list(product(RunState, RunEvent))
    with engine.begin() as db:
        db.execute(
            sa.insert(tables.dag_run),
            [
                {
                    "dag_id": "d", "run_id": f"r{n}", "run_type": "manual", "state": state,
                    "version_id": version, "run_after": 0, "queued_at": 0,
                    "start_date": None if state == RunState.QUEUED else 1,
                    "end_date": 1 if state in (RunState.SUCCESS, RunState.FAILED) else None,
                }
                for n, (state, _) in enumerate(cases)
            ],
        )  # fmt: skip
    keys = [row.id for row in rows(engine, tables.dag_run) if row.id != run_key]
    for key, (state, event) in zip(keys, cases, strict=True):
        moved = transact(engine, partial(move_runs, event=event, run_keys=[key], actor="test"))
        assert moved == ([key] if state in RUN_MOVES[event][0] else [])
    log = {row.dag_run_id: row for row in rows(engine, LOG)}
    for key, (state, event) in zip(keys, cases, strict=True):
        if state in RUN_MOVES[event][0]:
            assert (log[key].from_state, log[key].to_state) == (state, RUN_MOVES[event][1])


def test_a_run_id_and_an_interval_exist_once_invariant_s12(engine: Engine, run_key: int) -> None:
    version = rows(engine, tables.dag_run)[0].version_id

    def create(run_id: str, kind: str, start: int) -> int | None:
        run = NewRun("d", run_id, kind, version, start, start, start + 1, start + 1)
        return transact(engine, lambda tx: create_run(tx, run, actor="test"))

    assert create("s1", "scheduled", 10) is not None
    assert create("s1", "manual", 99) is None
    assert create("s2", "scheduled", 10) is None
    assert create("m1", "manual", 10) is not None
    assert create("s3", "scheduled", 11) is not None
    assert len(rows(engine, LOG)) == 3


_ODD = [
    "plain", "it's", 'say "hi"', "50%", "%(rows)s", ":rows", "{now}", "{rows:r | id bigint}",
    "back\\slash", "new\nline", "tab\t", "é\u0301", "\u202eabc", "\U0001f680", "a" * 250, " ",
    "$1", "NULL", "--", "/*", "?", "\ufffe", "\\u0041",
]  # fmt: skip


def test_odd_names_and_values_come_back_as_they_went(engine: Engine, run_key: int) -> None:
    """Rows travel as JSON, statements through two parameter styles: nothing in them is special."""
    wanted = [
        {
            "dag_run_id": run_key, "task_id": name, "map_index": -1, "pool": name,
            "pool_slots": 1, "queue": name, "priority_weight": -(2**31),
        }
        for name in _ODD
    ]  # fmt: skip
    created = transact(engine, lambda tx: create_task_instances(tx, wanted))
    assert [name for _, _, name, _ in created] == _ODD
    assert transact(engine, lambda tx: create_task_instances(tx, wanted)) == []
    assert [(row.task_id, row.pool, row.queue) for row in rows(engine, TI)] == [
        (name, name, name) for name in _ODD
    ]
    path = (Event.SCHEDULE, Event.ENQUEUE, Event.START)
    for ti_id, _, name, _ in created:
        row = {"id": ti_id, "next_kwargs": name, "run_us": 2**62}
        (moved,) = moves(
            engine, path, [row], sets=("next_kwargs",), adds=("run_us",), reason=f"why {name}"
        )
        assert moved.task_id == name
    assert [(row.next_kwargs, row.run_us) for row in rows(engine, TI)] == [
        (name, 2**62) for name in _ODD
    ]
    assert {row.reason for row in rows(engine, LOG)} == {f"why {name}" for name in _ODD}


@pytest.mark.parametrize(
    ("reason", "kept"), [("a\0b", "a\ufffdb"), ("x\ud800y", "x?y"), (None, None), ("", "")]
)
def test_a_reason_that_no_text_may_hold_is_still_a_reason(
    engine: Engine, run_key: int, reason: str | None, kept: str | None
) -> None:
    (ti_id,) = add(engine, run_key, [State.RUNNING])
    assert moves(engine, Event.FAIL, [{"id": ti_id}], reason=reason)
    assert rows(engine, LOG)[0].reason == kept
