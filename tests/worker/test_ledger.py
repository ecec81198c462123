"""The worker's transactions, on both databases: claims, outcomes, requests, the lease."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from roost.dag.model import SerializedDag, SerializedTask, SerializedTimetable
from roost.models.engine import open_engine, transact
from roost.models.queries import connections, jobs
from roost.support.crypto import Keyring, new_key
from roost.support.processes import me
from roost.support.task_requests import (
    ConnectionGet,
    ConnectionRecord,
    Reply,
    Request,
    VariableDelete,
    VariableGet,
    VariableSet,
    XComPull,
    XComPush,
)
from roost.support.wire import Outcome, XComWrite
from roost.worker.answers import Answers
from roost.worker.attendant import Asked, Ended
from roost.worker.ledger import Ledger, Start
from tests.support.databases import fetch

Queue = Callable[..., None]
RAW = msgspec.Raw
KEYS = Keyring(new_key())


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = open_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def new_ledger(engine: Engine) -> Callable[..., Ledger]:
    def make(*queues: str) -> Ledger:
        ledger = Ledger(engine, me(), queues or ("default",), "/run", Answers(KEYS))
        ledger.join()
        return ledger

    return make


@pytest.fixture
def enqueue(database_url: str) -> Queue:
    """Puts a queued task instance and its dispatch into the database."""
    dag = SerializedDag(
        "d",
        SerializedTimetable("null"),
        [SerializedTask(f"t{i}", "Op", retries=2, execution_timeout_us=5) for i in range(200)],
    )
    data = msgspec.json.encode(dag).decode()
    fetch(database_url, "INSERT INTO dag_source VALUES ('h', 'd.py', 'text', '[]', 0)")
    fetch(
        database_url,
        "INSERT INTO dag_version (id, dag_id, hash, code_hash, fileloc, data, created_at) "
        "VALUES (1, 'd', 'x', 'h', 'd.py', :data, 0)",
        data=data,
    )
    fetch(
        database_url,
        "INSERT INTO dag_run (id, dag_id, run_id, run_type, state, version_id, logical_date, "
        "run_after, queued_at) VALUES (1, 'd', 'r', 'manual', 'running', 1, 77, 0, 0)",
    )

    def put(number: int, *, priority: int = 1, queue: str = "default", **columns: Any) -> None:
        values = {
            "id": number,
            "dag_run_id": 1,
            "task_id": f"t{number}",
            "state": "queued",
            "try_number": 1,
            "dispatch_id": 1000 + number,
            **columns,
        }
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        insert = f"INSERT INTO task_instance ({names}) VALUES ({marks})"  # noqa: S608 - our names
        fetch(database_url, insert, **values)
        fetch(
            database_url,
            "INSERT INTO dispatch (id, ti_id, dag_run_id, try_number, queue, priority, created_at)"
            " VALUES (:id, :ti, 1, 1, :queue, :priority, 0)",
            id=1000 + number,
            ti=number,
            queue=queue,
            priority=priority,
        )

    return put


def ids(starts: list[Start]) -> list[int]:
    return [start.spec.dispatch_id for start in starts]


def success(start: Start, **more: Any) -> Ended:
    return Ended(start.spec, Outcome("success", 1, 2, **more))


def test_the_best_are_claimed_first(new_ledger: Callable[..., Ledger], enqueue: Queue) -> None:
    """E7: by priority, then by age."""
    for number, priority in ((1, 1), (2, 5), (3, 5), (4, 9)):
        enqueue(number, priority=priority)
    ledger = new_ledger()
    assert ids(ledger.claim(3)) == [1004, 1002, 1003]
    assert ids(ledger.claim(3)) == [1001]
    assert ledger.claim(3) == []


def test_only_its_queues_are_claimed(new_ledger: Callable[..., Ledger], enqueue: Queue) -> None:
    """S52."""
    for number, queue in ((1, "default"), (2, "gpu"), (3, "other")):
        enqueue(number, queue=queue)
    assert ids(new_ledger("gpu", "other").claim(10)) == [1002, 1003]


def test_a_claim_starts_the_task_instance(
    new_ledger: Callable[..., Ledger], enqueue: Queue, database_url: str
) -> None:
    enqueue(1)
    enqueue(2, start_date=55, run_us=9, next_method="resume", next_kwargs='{"event":1}')
    fresh, resumed = (start.spec for start in new_ledger().claim(2))
    assert (fresh.task_id, fresh.fileloc, fresh.logical_date) == ("t1", "d.py", 77)
    assert (fresh.max_tries, fresh.execution_timeout_us) == (3, 5)
    assert (resumed.start_date, resumed.run_us, resumed.next_method) == (55, 9, "resume")
    assert bytes(resumed.next_kwargs) == b'{"event":1}'
    rows = fetch(database_url, "SELECT state, start_date FROM task_instance ORDER BY id")
    assert rows == [
        {"state": "running", "start_date": fresh.start_date},
        {"state": "running", "start_date": 55},  # D3: a resume keeps the start of its try
    ]


def test_a_dispatch_whose_task_instance_moved_on_is_not_started(
    new_ledger: Callable[..., Ledger], enqueue: Queue, database_url: str
) -> None:
    """invariant S2: the dispatch is not the task instance's current one any more."""
    enqueue(1)
    enqueue(2, dispatch_id=2002)
    assert ids(new_ledger().claim(2)) == [1001]
    [row] = fetch(database_url, "SELECT outcome FROM dispatch WHERE id = 1002")
    assert msgspec.json.decode(row["outcome"])["kind"] == "lost"


def test_two_workers_never_claim_the_same(
    new_ledger: Callable[..., Ledger], enqueue: Queue
) -> None:
    """invariant S1."""
    for number in range(1, 41):
        enqueue(number)
    ledgers = [new_ledger(), new_ledger()]
    claimed: list[int] = []

    def work(ledger: Ledger) -> None:
        while starts := ledger.claim(3):
            claimed.extend(ids(starts))

    threads = [threading.Thread(target=work, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(1001, 1041))


def test_a_worker_declared_dead_claims_and_ends_nothing(
    new_ledger: Callable[..., Ledger], enqueue: Queue, engine: Engine, database_url: str
) -> None:
    """invariant S15."""
    enqueue(1)
    enqueue(2)
    ledger = new_ledger()
    [start] = ledger.claim(1)
    transact(engine, lambda tx: jobs.end(tx, ledger.job_id))
    assert ledger.claim(1) == []
    fetch(
        database_url,
        "UPDATE dispatch SET ended_at = 1, outcome = '{}' WHERE id = :id",
        id=start.spec.dispatch_id,
    )
    assert ledger.store([success(start, xcoms=[XComWrite("k", RAW(b"1"))])]) == 0
    assert fetch(database_url, "SELECT * FROM xcom") == []
    beat = ledger.beat(busy=True)
    assert (beat.alive, beat.held) == (False, set())


def test_an_outcome_is_stored_once_with_its_xcoms(
    new_ledger: Callable[..., Ledger], enqueue: Queue, database_url: str
) -> None:
    enqueue(1)
    ledger = new_ledger()
    [start] = ledger.claim(1)
    ended = success(start, xcoms=[XComWrite("return_value", RAW(b'{"rows":42}'), 1)])
    assert ledger.beat(busy=True).held == {1001}
    assert ledger.store([ended]) == 1
    assert ledger.store([ended]) == 0  # the answer to the first commit was lost
    assert ledger.beat(busy=True).held == set()
    assert ledger.beat(busy=False).held is None  # nothing was claimed since: it need not look
    ledger.claim(5)
    assert ledger.beat(busy=False).held is not None  # a claim's answer may have been lost
    [row] = fetch(database_url, "SELECT outcome FROM dispatch")
    assert msgspec.json.decode(row["outcome"], type=Outcome) == Outcome("success", 1, 2)
    assert fetch(database_url, "SELECT ti_id, key, value, length FROM xcom") == [
        {"ti_id": 1, "key": "return_value", "value": '{"rows":42}', "length": 1}
    ]


def test_requests_are_answered_for_the_task_that_asked(
    new_ledger: Callable[..., Ledger], enqueue: Queue
) -> None:
    """S54, S56, S57, S61."""
    enqueue(1)
    enqueue(2)
    ledger = new_ledger()
    first, second = ledger.claim(2)

    def ask(start: Start, request: Request) -> Reply:
        [reply] = ledger.answer([Asked(start.spec, request)])
        return reply

    assert ask(first, XComPush("a", RAW(b"1"))) == Reply()
    assert ask(second, XComPush("a", RAW(b"2"))) == Reply()

    def pulled(**request: Any) -> list[Any]:
        reply = ask(second, XComPull(**request))
        return [msgspec.json.decode(value) for value in reply.values]

    assert pulled(task_ids=["t2", "t9", "t1"], key="a") == [2, None, 1]
    assert pulled(task_ids=["t1"]) == [None]
    assert pulled(task_ids=["t1"], key=None) == [1]
    assert pulled(task_ids=None, key="a") == [2]
    assert pulled(task_ids=["t1"], key="a", run_id="other") == [None]
    assert pulled(task_ids=["t1"], key="a", run_id="r", include_prior_dates=True) == [1]
    assert pulled(task_ids=["t1"], key="a", map_index=3) == [None]
    assert ask(first, VariableGet("v")).text is None
    ask(first, VariableSet("v", "x", "why"))
    ask(first, VariableSet("v", "y"))
    assert ask(second, VariableGet("v")).text == "y"
    assert ask(second, VariableDelete("v")).count == 1
    assert ask(second, ConnectionGet("none")).connection is None
    ledger.store([success(first)])
    refused = ask(first, XComPush("late", RAW(b"1")))
    assert refused.error is not None


def test_s62_variables_and_connections_are_decrypted_for_the_task(
    engine: Engine, enqueue: Queue, database_url: str
) -> None:
    """Encrypted in the database, plain on the task's line; a row of another key is named."""
    enqueue(1)
    ledger = Ledger(engine, me(), ("default",), "/run", Answers(KEYS))
    ledger.join()
    [start] = ledger.claim(1)

    def ask(*requests: Request, of: Ledger = ledger) -> list[Reply]:
        return of.answer([Asked(start.spec, request) for request in requests])

    record = ConnectionRecord("wh", "pg", password="canary-1", extra='{"k": "canary-2"}')  # noqa: S106
    transact(engine, lambda tx: connections.add_connection(tx, record, KEYS))
    fetch(database_url, "INSERT INTO connection (conn_id, password) VALUES ('old', 'plain')")
    ask(VariableSet("v", "canary-3"))
    rows = [*fetch(database_url, "SELECT * FROM variable")]
    rows += fetch(database_url, "SELECT * FROM connection")
    assert "canary" not in str(rows)
    variable, found, old = ask(VariableGet("v"), ConnectionGet("wh"), ConnectionGet("old"))
    assert variable.text == "canary-3"
    assert found.connection is not None
    assert (found.connection.password, found.connection.extra) == ("canary-1", '{"k": "canary-2"}')
    assert old.connection is not None
    assert old.connection.password == "plain"  # noqa: S105

    wrong = Ledger(engine, me(), ("default",), "/run", Answers(Keyring(new_key())))
    variable, found, old = ask(
        VariableGet("v"), ConnectionGet("wh"), ConnectionGet("old"), of=wrong
    )
    assert (variable.error or "").startswith("Variable 'v' cannot be decrypted")
    assert (found.error or "").startswith("Connection 'wh' cannot be decrypted")
    assert old.connection is not None
    without = Ledger(engine, me(), ("default",), "/run", Answers(Keyring()))
    refused, there = ask(VariableSet("n", "x"), VariableGet("n"), of=without)
    assert "`roost config init` makes one" in (refused.error or "")
    assert there == Reply()


def test_s47_one_of_several_connections_is_picked_at_random(
    engine: Engine, enqueue: Queue, new_ledger: Callable[..., Ledger]
) -> None:
    """All of them in turn; that none comes in 200 draws has a chance of 10^-30."""
    enqueue(1)
    ledger = new_ledger()
    [start] = ledger.claim(1)
    hosts = ["h1", "h2", "h3"]
    for host in hosts:
        one = ConnectionRecord("wh", host=host)
        transact(engine, partial(connections.add_connection, record=one, keys=KEYS))
    replies = ledger.answer([Asked(start.spec, ConnectionGet("wh"))] * 200)
    assert {reply.connection.host for reply in replies if reply.connection} == set(hosts)


def test_prior_dates_reach_earlier_runs_only(
    new_ledger: Callable[..., Ledger], enqueue: Queue, database_url: str
) -> None:
    """S56: include_prior_dates, the latest first."""
    for key, date in ((2, 50), (3, 60), (4, 99)):
        fetch(
            database_url,
            "INSERT INTO dag_run (id, dag_id, run_id, run_type, state, version_id, logical_date, "
            "run_after, queued_at, end_date) "
            "SELECT :key, dag_id, :run, run_type, 'success', version_id, :date, 0, 0, 1 "
            "FROM dag_run WHERE id = 1",
            key=key,
            run=f"r{key}",
            date=date,
        )
    enqueue(1)
    for key, date in ((2, 50), (3, 60), (4, 99)):
        fetch(
            database_url,
            "INSERT INTO task_instance (id, dag_run_id, task_id, state) "
            "VALUES (:id, :run, 'p', 'success')",
            id=key * 10,
            run=key,
        )
        fetch(
            database_url,
            "INSERT INTO xcom (ti_id, key, value, created_at) VALUES (:ti, 'k', :value, 0)",
            ti=key * 10,
            value=str(date),
        )
    ledger = new_ledger()
    [start] = ledger.claim(1)
    request = XComPull(task_ids=["p"], key="k", include_prior_dates=True)
    [reply] = ledger.answer([Asked(start.spec, request)])
    assert [bytes(value) for value in reply.values] == [b"60"]


def test_h17_the_name_of_an_instance_is_kept_by_whoever_held_it(
    new_ledger: Callable[..., Ledger], enqueue: Queue, database_url: str
) -> None:
    enqueue(1)
    enqueue(2)
    ledger = new_ledger()
    first, second = ledger.claim(2)
    ledger.give_up([second.spec.dispatch_id], "gone")
    ledger.store([success(first, map_name="a.csv"), success(second, map_name="late")])
    rows = fetch(database_url, "SELECT map_name FROM task_instance ORDER BY id")
    assert [row["map_name"] for row in rows] == ["a.csv", None]
