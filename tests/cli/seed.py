"""Rows for the command line to list: what daemons would have written, without any daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from roost.cli.main import cli
from roost.dag.model import ParsedFile, SerializedDag, SerializedTask, SerializedTimetable
from roost.models.engine import open_engine, transact
from roost.scheduler.parsing.store import store_file
from roost.support.clock import SECOND, now_us
from roost.support.processes import host_id, start_ticks

__all__ = ["DAY_US", "MOMENT", "Seed", "chain"]

DAY_US = 86_400 * SECOND
# 2026-01-05T06:00:00Z
MOMENT = 1_767_592_800 * SECOND


def chain(dag_id: str, *task_ids: str, **knobs: Any) -> SerializedDag:
    """A DAG without a schedule whose tasks follow one another; knobs go to the DAG."""
    tasks = [
        SerializedTask(task_id=name, operator="PythonOperator", downstream=[after] if after else [])
        for name, after in zip(task_ids, [*task_ids[1:], ""], strict=True)
    ]
    knobs.setdefault("timetable", SerializedTimetable(kind="null", summary="None"))
    return SerializedDag(dag_id=dag_id, tasks=tasks, owners=["me"], **knobs)


class Seed:
    """A migrated database, a home, and the commands that run against them.

    Args:
        url: the database.
        home: becomes ROOST_HOME.
    """

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home
        self.env = {"ROOST_HOME": str(home), "ROOST__DATABASE__URL": url}
        self._engine = create_engine(url, poolclass=NullPool)

    def cli(self, *args: str, input: str | None = None, **env: str) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(cli, args, input=input, env={**self.env, **env})

    def json(self, *args: str) -> Any:
        """What a listing prints as JSON."""
        result = self.cli(*args, "-o", "json")
        assert result.exit_code == 0, result.stderr
        return msgspec.json.decode(result.stdout)

    def sql(self, statement: str, **params: Any) -> list[Any]:
        """Run one statement in a transaction of its own."""
        with self._engine.begin() as connection:
            result = connection.execute(text(statement), params)
            return list(result) if result.returns_rows else []

    def scalar(self, statement: str, **params: Any) -> Any:
        """The first column of the first row."""
        return self.sql(statement, **params)[0][0]

    def dags(self, *dags: SerializedDag, fileloc: str = "etl.py", error: str | None = None) -> None:
        """Store a DAG file as the scheduler does after a parse."""
        parsed = ParsedFile(
            code_hash=fileloc, source="", helpers=[], dags=list(dags), triggers=[], error=error
        )
        engine = open_engine(self.url)
        try:
            transact(
                engine,
                lambda tx: store_file(tx, fileloc, parsed, stamp="", took_us=1, paused=False),
            )
        finally:
            engine.dispose()

    def run(self, dag_id: str, run_id: str, *, state: str = "running", date: int = MOMENT) -> int:
        """A run with its task instances, all of them none; gives its key."""
        ended = state in ("success", "failed")
        version, data = self.sql(
            "SELECT v.id, v.data FROM dag d JOIN dag_version v ON v.id = d.version_id "
            "WHERE d.dag_id = :dag_id",
            dag_id=dag_id,
        )[0]
        key = self.scalar(
            "INSERT INTO dag_run (dag_id, run_id, run_type, state, version_id, logical_date, "
            "interval_start, interval_end, run_after, queued_at, start_date, end_date) VALUES "
            "(:dag_id, :run_id, 'manual', :state, :version, :date, :date, :date, :date, :date, "
            ":date, :ended) RETURNING id",
            dag_id=dag_id,
            run_id=run_id,
            state=state,
            version=version,
            date=date,
            ended=date + SECOND if ended else None,
        )
        for task in msgspec.json.decode(data, type=SerializedDag).tasks:
            self.sql(
                "INSERT INTO task_instance (dag_run_id, task_id, pool, pool_slots, queue, "
                "priority_weight) VALUES (:key, :task_id, :pool, :slots, :queue, 1)",
                key=key,
                task_id=task.task_id,
                pool=task.pool,
                slots=task.pool_slots,
                queue=task.queue,
            )
        return int(key)

    def instance(self, run_key: int, task_id: str, **columns: Any) -> int:
        """Set columns of a task instance; gives its id."""
        sets = ", ".join(f"{name} = :{name}" for name in columns)
        return int(
            self.scalar(
                f"UPDATE task_instance SET {sets} WHERE dag_run_id = :run_key "  # noqa: S608
                "AND task_id = :task_id RETURNING id",
                run_key=run_key,
                task_id=task_id,
                **columns,
            )
        )

    def dispatch(
        self, ti_id: int, run_key: int, *, queue: str = "default", number: int = 1
    ) -> None:
        """A live, unclaimed dispatch of a task instance."""
        self.sql(
            "INSERT INTO dispatch (id, ti_id, dag_run_id, try_number, queue, priority, "
            "created_at) VALUES (:number, :ti_id, :run_key, 1, :queue, 1, :at)",
            number=number,
            ti_id=ti_id,
            run_key=run_key,
            queue=queue,
            at=MOMENT,
        )

    def trigger(self, ti_id: int, run_key: int, **columns: Any) -> int:
        """A trigger that a task instance waits for; gives its id."""
        row = {
            "ti_id": ti_id, "dag_run_id": run_key, "dispatch_id": 1, "lane": "poll",
            "classpath": "mypkg.JobTrigger", "source": "mypkg:JobTrigger", "kwargs": "{}",
            "next_kwargs": "{}", "code_hash": "x", "fileloc": "etl.py", "queue": "default",
            "created_at": MOMENT, **columns,
        }  # fmt: skip
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        statement = f"INSERT INTO trigger ({names}) VALUES ({values}) RETURNING id"  # noqa: S608
        return int(self.scalar(statement, **row))

    def job(self, kind: str, *, alive: bool = True, detail: str = "{}") -> int:
        """A daemon: this very process while it is alive, else one that is long gone."""
        pid = os.getpid()
        ticks = start_ticks(pid) or 0
        return int(
            self.scalar(
                "INSERT INTO job (kind, hostname, host_id, pid, pid_start, run_dir, token, "
                "started_at, lease_until, detail) VALUES (:kind, 'here', :host_id, :pid, :ticks, "
                "'', '', :now, :now, :detail) RETURNING id",
                kind=kind,
                host_id=host_id(),
                pid=pid,
                ticks=ticks if alive else ticks + 1,
                now=now_us(),
                detail=detail,
            )
        )
