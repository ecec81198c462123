"""The database refuses the bug first: indexes and CHECKs."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from roost.models import tables
from roost.models.engine import transact
from roost.models.queries import handoffs, runs

TI = tables.task_instance


@pytest.fixture
def ti_id(engine: Engine, run_key: int) -> int:
    with engine.begin() as db:
        row = db.execute(sa.insert(TI).values(dag_run_id=run_key, task_id="a").returning(TI.c.id))
        return int(row.scalar_one())


def insert(engine: Engine, table: sa.Table, **values: Any) -> None:
    with engine.begin() as db:
        db.execute(sa.insert(table).values(**values))


def dispatch(engine: Engine, run_key: int, ti_id: int, id_: int, **values: Any) -> None:
    insert(
        engine, tables.dispatch, id=id_, ti_id=ti_id, dag_run_id=run_key, try_number=1,
        queue="q", priority=1, created_at=0, **values,
    )  # fmt: skip


def trigger(engine: Engine, run_key: int, ti_id: int, **values: Any) -> None:
    insert(
        engine, tables.trigger,
        **{
            "ti_id": ti_id, "dag_run_id": run_key, "dispatch_id": 1, "lane": "poll",
            "classpath": "c", "source": "s", "kwargs": "{}", "next_kwargs": "{}",
            "code_hash": "c", "fileloc": "f", "queue": "q", "created_at": 0, **values,
        },
    )  # fmt: skip


def test_a_second_live_dispatch_invariant_s1(engine: Engine, run_key: int, ti_id: int) -> None:
    dispatch(engine, run_key, ti_id, 1)
    with pytest.raises(IntegrityError):
        dispatch(engine, run_key, ti_id, 2)
    dispatch(engine, run_key, ti_id, 3, ended_at=1, outcome="{}")


@pytest.mark.parametrize(
    "values",
    [{"ended_at": 1}, {"outcome": "{}"}, {"claimed_at": 1}, {"job_id": 1}, {"settled": True}],
)
def test_a_dispatch_that_is_half_of_something(
    engine: Engine, run_key: int, ti_id: int, values: dict[str, Any]
) -> None:
    with pytest.raises(IntegrityError):
        dispatch(engine, run_key, ti_id, 1, **values)


def test_a_second_trigger_of_a_task_and_a_second_event_invariant_s3_s6(
    engine: Engine, run_key: int, ti_id: int
) -> None:
    trigger(engine, run_key, ti_id, id=1)
    with pytest.raises(IntegrityError):
        trigger(engine, run_key, ti_id, id=2)
    event = {"trigger_id": 1, "epoch": 0, "kind": "fired", "created_at": 0}
    insert(engine, tables.trigger_event, **event)
    with pytest.raises(IntegrityError):
        insert(engine, tables.trigger_event, **event)
    with pytest.raises(IntegrityError):
        insert(engine, tables.trigger_event, **{**event, "trigger_id": 9})
    with pytest.raises(IntegrityError):
        insert(engine, tables.trigger_event, **{**event, "kind": "guessed"})


@pytest.mark.parametrize("values", [{"lane": "timer"}, {"lane": "fast"}])
def test_a_trigger_that_no_lane_can_serve(
    engine: Engine, run_key: int, ti_id: int, values: dict[str, Any]
) -> None:
    with pytest.raises(IntegrityError):
        trigger(engine, run_key, ti_id, **values)


def test_an_over_full_pool_invariant_s8(engine: Engine) -> None:
    insert(engine, tables.pool, pool="p", slots=2)

    def change(by: int) -> None:
        transact(engine, lambda tx: handoffs.change_pools(tx, {"p": by}))

    change(200)
    for by in (1, -201):
        with pytest.raises(IntegrityError):
            change(by)
    used = sa.select(tables.pool.c.used).where(tables.pool.c.pool == "p")
    with engine.begin() as db:
        assert db.execute(used).scalar() == 200
    insert(engine, tables.pool, pool="most", slots=2**31 - 1)
    transact(engine, lambda tx: handoffs.change_pools(tx, {"most": 2**31}))
    insert(engine, tables.pool, pool="all", slots=-1)
    transact(engine, lambda tx: handoffs.change_pools(tx, {"all": 10**6}))


def test_too_many_active_runs_invariant_s9(engine: Engine) -> None:
    insert(engine, tables.dag_usage, dag_id="d", max_runs=1)

    def change(by: int) -> None:
        transact(engine, lambda tx: runs.change_run_slots(tx, {"d": by}))

    change(1)
    for by in (1, -2):
        with pytest.raises(IntegrityError):
            change(by)


def test_a_second_scheduled_run_of_an_interval_invariant_s12(engine: Engine, run_key: int) -> None:
    with engine.begin() as db:
        version = db.execute(sa.select(tables.dag_run.c.version_id)).scalar_one()
    row = {
        "dag_id": "d", "run_type": "scheduled", "state": "queued", "version_id": version,
        "interval_start": 5, "run_after": 6, "queued_at": 0,
    }  # fmt: skip
    insert(engine, tables.dag_run, run_id="one", **row)
    with pytest.raises(IntegrityError):
        insert(engine, tables.dag_run, run_id="two", **row)
    insert(engine, tables.dag_run, run_id="by hand", **{**row, "run_type": "manual"})


@pytest.mark.parametrize(
    "values", [{"state": "success"}, {"state": "running", "end_date": 1}, {"state": "lost"}]
)
def test_a_run_that_is_half_finished(engine: Engine, run_key: int, values: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), engine.begin() as db:
        db.execute(sa.update(tables.dag_run).values(**values))


def test_a_state_that_is_none_of_ours(engine: Engine, ti_id: int) -> None:
    with pytest.raises(IntegrityError), engine.begin() as db:
        db.execute(sa.update(TI).values(state="zombie"))
