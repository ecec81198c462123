"""A callback in the queue: claimed like a task, moves nothing, knows what it is about (H23)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from roost.support.task_requests import XComPush
from roost.support.wire import CallbackSpec, Outcome
from roost.worker.attendant import Asked, Ended
from roost.worker.ledger import Ledger
from roost.worker.tasklog import task_log_path
from tests.support.databases import fetch
from tests.worker.test_ledger import Queue, engine, enqueue, new_ledger

__all__ = ["engine", "enqueue", "new_ledger"]


@pytest.fixture
def call(database_url: str) -> Callable[..., None]:
    """Puts a dispatch of a callback into the database, number 5000."""

    def put(**fields: Any) -> None:
        spec = CallbackSpec(**{"kind": "task", "name": "on_failure", "task_id": "t1", **fields})
        fetch(
            database_url,
            "INSERT INTO dispatch (id, dag_run_id, try_number, queue, priority, callback, "
            "created_at) VALUES (5000, 1, 1, 'default', 9, :callback, 0)",
            callback=msgspec.json.encode(spec).decode(),
        )

    return put


def test_h23_it_is_claimed_with_the_fields_of_its_task_instance(
    new_ledger: Callable[..., Ledger],
    enqueue: Queue,
    call: Callable[..., None],
    database_url: str,
) -> None:
    """H23: no state moves; the task instance is shown as the scheduler described it."""
    enqueue(1)
    call(ti_id=1, map_index=3, try_number=2, state="failed", start_date=44)
    callback, task = new_ledger().claim(10)
    spec = callback.spec
    assert (spec.dispatch_id, spec.ti_id, spec.task_id, spec.map_index) == (5000, 1, "t1", 3)
    assert (spec.try_number, spec.start_date, spec.run_id, spec.max_tries) == (2, 44, "r", 3)
    assert spec.execution_timeout_us == 60_000_000
    assert spec.callback is not None and spec.callback.state == "failed"
    assert callback.source == "text"
    assert task.spec.callback is None
    assert task.spec.execution_timeout_us == 5
    assert fetch(database_url, "SELECT state, version FROM task_instance") == [
        {"state": "running", "version": 1}
    ]
    assert task_log_path("/l", spec).endswith("task_id=t1/map_index=3/attempt=2.log")


def test_h23_what_concerns_a_run_has_the_runs_log(
    new_ledger: Callable[..., Ledger], enqueue: Queue, call: Callable[..., None]
) -> None:
    """H23: one log for all that is of the run as a whole; the shown task's user is not taken."""
    enqueue(1)
    call(kind="dag", name="on_success", ti_id=1)
    callback, _ = new_ledger().claim(10)
    assert callback.spec.run_as_user is None
    assert task_log_path("/l", callback.spec) == "/l/dag_id=d/run_id=r/dag.log"


def test_h23_its_outcome_waits_to_be_settled_and_it_stores_no_xcom(
    new_ledger: Callable[..., Ledger],
    enqueue: Queue,
    call: Callable[..., None],
    database_url: str,
) -> None:
    """H23: a callback may read XComs; its task instance is not its own to write for."""
    enqueue(1)
    call(ti_id=1)
    ledger = new_ledger()
    (callback,) = ledger.claim(1)
    beat = ledger.beat(busy=True)
    assert (beat.held, beat.undead) == ({5000}, frozenset())
    (reply,) = ledger.answer([Asked(callback.spec, XComPush("k", msgspec.Raw(b"1")))])
    assert "not valid" in (reply.error or "")
    assert ledger.store([Ended(callback.spec, Outcome("success", 1, 2))]) == 1
    (row,) = fetch(database_url, "SELECT settled, outcome FROM dispatch WHERE id = 5000")
    assert not row["settled"]
    assert '"kind":"success"' in row["outcome"]
