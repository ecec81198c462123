"""Tasks that run in this process and ask a real worker's ledger on a real database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Engine

from roost.dag import DAG
from roost.dag.model import SerializedDag, SerializedTask, SerializedTimetable
from roost.dag.operator import BaseOperator
from roost.dag.run import execute_task
from roost.models.engine import open_engine
from roost.support.crypto import Keyring, new_key
from roost.support.processes import me
from roost.support.task_requests import Reply, Request
from roost.support.wire import Outcome
from roost.worker.answers import Answers
from roost.worker.attendant import Asked, Ended
from roost.worker.ledger import Ledger, Start
from tests.dag.case import a_dag
from tests.support.databases import fetch

__all__ = ["House"]

TASKS = ("a", "b", "c")
Body = Callable[[dict[str, Any]], Any]


class House:
    """DAGs ``d`` and ``other`` with the tasks of :data:`TASKS`, a worker, and no scheduler.

    Args:
        url: the database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = Keyring(new_key())
        self.engine: Engine = open_engine(url)
        self.ledger = Ledger(
            self.engine, me(), ("default",), "/run", Answers(self.keys, max_xcom_size=50_000)
        )
        self.ledger.join()
        self._runs: dict[tuple[str, str], int] = {}
        self._looks = 0
        fetch(url, "INSERT INTO dag_source VALUES ('h', 'd.py', 'text', '[]', 0)")
        for number, dag_id in enumerate(("d", "other"), 1):
            dag = SerializedDag(
                dag_id, SerializedTimetable("null"), [SerializedTask(name, "Op") for name in TASKS]
            )
            fetch(
                url,
                "INSERT INTO dag_version (id, dag_id, hash, code_hash, fileloc, data, created_at) "
                "VALUES (:id, :dag_id, :dag_id, 'h', 'd.py', :data, 0)",
                id=number,
                dag_id=dag_id,
                data=msgspec.json.encode(dag).decode(),
            )
        self.start("r", 100)

    def start(self, run_id: str, date: int | None, dag_id: str = "d") -> None:
        """A run of a DAG with a logical date."""
        key = self._runs[dag_id, run_id] = len(self._runs) + 1
        fetch(
            self.url,
            "INSERT INTO dag_run (id, dag_id, run_id, run_type, state, version_id, logical_date, "
            "run_after, queued_at) VALUES (:id, :dag_id, :run_id, 'manual', 'running', :version, "
            ":date, 0, 0)",
            id=key,
            dag_id=dag_id,
            run_id=run_id,
            version=1 if dag_id == "d" else 2,
            date=date,
        )

    def claim(self, task_id: str, run_id: str, dag_id: str = "d") -> Start:
        """Queue a task instance and claim it."""
        key = self._runs[dag_id, run_id]
        (count,) = fetch(self.url, "SELECT count(*) AS count FROM dispatch")
        number = count["count"] + 1
        fetch(
            self.url,
            "INSERT INTO task_instance (id, dag_run_id, task_id, state, try_number, dispatch_id) "
            "VALUES (:number, :key, :task_id, 'queued', 1, :number)",
            number=number,
            key=key,
            task_id=task_id,
        )
        fetch(
            self.url,
            "INSERT INTO dispatch (id, ti_id, dag_run_id, try_number, queue, priority, created_at) "
            "VALUES (:number, :number, :key, 1, 'default', 1, 0)",
            number=number,
            key=key,
        )
        (start,) = self.ledger.claim(10)
        return start

    def run(
        self,
        task_id: str,
        body: Body | BaseOperator,
        *,
        run_id: str = "r",
        dag_id: str = "d",
        store: bool = True,
    ) -> Outcome:
        """Run a task from its claim to its stored outcome; ``body`` is given the context."""
        start = self.claim(task_id, run_id, dag_id)
        task = body if isinstance(body, BaseOperator) else made(a_dag(dag_id), task_id, body)
        outcome = execute_task(task, start.spec, _Line(self.ledger, start))
        if store:
            self.ledger.store([Ended(start.spec, outcome)])
        return outcome

    def seen(self, body: Body, **where: Any) -> Any:
        """What ``body`` returns in a task of its own."""
        found: list[Any] = []
        self._looks += 1
        outcome = self.run(
            f"look{self._looks}", lambda context: found.append(body(context)), **where
        )
        assert outcome.error is None, outcome.error
        return found[0]

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


class _Line:
    """The task's line, without a process in between; through the wire's own text both ways."""

    def __init__(self, ledger: Ledger, start: Start) -> None:
        self._ledger = ledger
        self._start = start

    def call(self, request: Request) -> Reply:
        request = msgspec.json.decode(msgspec.json.encode(request), type=Request)
        (reply,) = self._ledger.answer([Asked(self._start.spec, request)])
        return msgspec.json.decode(msgspec.json.encode(reply), type=Reply)


def made(dag: DAG, task_id: str, body: Body, **arguments: Any) -> BaseOperator:
    """A task that runs ``body``."""

    class Made(BaseOperator):
        def execute(self, context: dict[str, Any]) -> Any:
            return body(context)

    return Made(task_id=task_id, dag=dag, **arguments)
