"""Which executor core.executor names, and what submitting does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from roost.exceptions import ConfigError
from roost.executors.base import BaseExecutor, load_executor
from roost.executors.instant import InstantExecutor
from roost.executors.local import LocalExecutor, SequentialExecutor
from roost.models.engine import open_engine
from roost.models.queries.handoffs import Handoff
from roost.support.config import Config, load_config
from roost.support.doorbell import Doorbell, drain
from tests.support.databases import fetch


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Doorbell]:
    with Doorbell(tmp_path / "run") as made:
        yield made


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = open_engine(database_url)
    yield made
    made.dispose()


def config(tmp_path: Path, **core: Any) -> Config:
    overrides = {f"core.{name}": value for name, value in core.items()}
    return load_config({"ROOST_HOME": str(tmp_path)}, overrides)


HANDOFF = Handoff(id=1001, ti_id=1, dag_run_id=1, try_number=1, queue="default", priority=1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("local", LocalExecutor),
        ("sequential", SequentialExecutor),
        ("instant", InstantExecutor),
        ("roost.executors.local:LocalExecutor", LocalExecutor),
    ],
)
def test_executors_are_chosen_by_name_or_import_path(
    tmp_path: Path, bell: Doorbell, name: str, kind: type[BaseExecutor]
) -> None:
    engine = open_engine("sqlite:///:memory:")
    executor = load_executor(config(tmp_path, executor=name, parallelism=7), engine, bell)
    assert type(executor) is kind
    assert executor.parallelism == (1 if kind is SequentialExecutor else 7)
    assert executor.open_slots(5) == max(0, executor.parallelism - 5)
    engine.dispose()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lokal", "there is no such executor"),
        ("no.such.module:Thing", "cannot be imported"),
        ("roost.executors.local:Missing", "cannot be imported"),
        ("pathlib:Path", "is not a subclass of BaseExecutor"),
    ],
)
def test_a_wrong_name_is_told_in_one_line(
    tmp_path: Path, bell: Doorbell, name: str, message: str
) -> None:
    engine = open_engine("sqlite:///:memory:")
    with pytest.raises(ConfigError, match=message):
        load_executor(config(tmp_path, executor=name), engine, bell)
    engine.dispose()


def test_the_local_executor_rings_the_workers(tmp_path: Path, bell: Doorbell) -> None:
    engine = open_engine("sqlite:///:memory:")
    executor = LocalExecutor(config(tmp_path), engine, bell)
    with bell.listen("worker") as heard:
        executor.submit([])
        assert drain(heard) == 0
        executor.submit([HANDOFF])
        assert drain(heard) == 1
    engine.dispose()


def test_the_instant_executor_succeeds_at_once(
    tmp_path: Path, bell: Doorbell, engine: Engine, database_url: str
) -> None:
    for statement in (
        (
            "INSERT INTO dag_version (id, dag_id, hash, code_hash, fileloc, data, created_at) "
            "VALUES (1, 'd', 'x', 'h', 'd.py', '{}', 0)"
        ),
        (
            "INSERT INTO dag_run (id, dag_id, run_id, run_type, state, version_id, run_after, "
            "queued_at) VALUES (1, 'd', 'r', 'manual', 'running', 1, 0, 0)"
        ),
        (
            "INSERT INTO task_instance (id, dag_run_id, task_id, state, dispatch_id) "
            "VALUES (1, 1, 't', 'queued', 1001)"
        ),
        (
            "INSERT INTO dispatch (id, ti_id, dag_run_id, try_number, queue, priority, created_at) "
            "VALUES (1001, 1, 1, 1, 'default', 1, 0)"
        ),
    ):
        fetch(database_url, statement)
    executor = InstantExecutor(config(tmp_path), engine, bell)
    with bell.listen("scheduler") as heard:
        executor.submit([HANDOFF])
        assert drain(heard) == 1
    [row] = fetch(database_url, "SELECT outcome FROM dispatch")
    assert msgspec.json.decode(row["outcome"])["kind"] == "success"
    assert fetch(database_url, "SELECT state FROM task_instance") == [{"state": "running"}]
    executor.end()
    [job] = fetch(database_url, "SELECT kind, ended_at FROM job")
    assert job["kind"] == "instant"
    assert job["ended_at"] is not None
