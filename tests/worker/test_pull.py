"""H17: what mapped tasks read of others: elements, lengths, and what all instances left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import Engine

from roost.exceptions import RoostException
from roost.models.engine import open_engine, read
from roost.models.pull import Puller
from roost.models.queries import xcoms
from roost.support import typedjson
from roost.support.task_requests import XComPull
from tests.support.databases import fetch
from tests.worker.driving import make_spec

SPEC = make_spec(1, "t", run_id="r")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A run with a task `list` and five instances of `m`, of which 0, 2 and 3 left a value."""
    made = open_engine(database_url)
    fetch(database_url, "INSERT INTO dag_source VALUES ('h', 'd.py', 'text', '[]', 0)")
    fetch(
        database_url,
        "INSERT INTO dag_version (id, dag_id, hash, code_hash, fileloc, data, created_at) "
        "VALUES (1, 'd', 'x', 'h', 'd.py', '{}', 0)",
    )
    fetch(
        database_url,
        "INSERT INTO dag_run (id, dag_id, run_id, run_type, state, version_id, run_after, "
        "queued_at) VALUES (1, 'd', 'r', 'manual', 'running', 1, 0, 0)",
    )
    for id_, task_id, map_index in [(1, "list", -1), *((10 + i, "m", i) for i in range(5))]:
        fetch(
            database_url,
            "INSERT INTO task_instance (id, dag_run_id, task_id, map_index, state) "
            "VALUES (:id, 1, :task, :map, 'success')",
            id=id_,
            task=task_id,
            map=map_index,
        )
    for ti_id, value in [(1, ["a", {"b": 1}, None]), (13, "three"), (10, "zero"), (12, "two")]:
        store(database_url, ti_id, value)
    yield made
    made.dispose()


def store(database_url: str, ti_id: int, value: Any, at: int = 1) -> None:
    fetch(database_url, "DELETE FROM xcom WHERE ti_id = :ti", ti=ti_id)
    fetch(
        database_url,
        "INSERT INTO xcom (ti_id, key, value, length, created_at) "
        "VALUES (:ti, 'return_value', :value, :length, :at)",
        ti=ti_id,
        value=typedjson.encode(value).decode(),
        length=len(value) if isinstance(value, list) else None,
        at=at,
    )


def pulled(engine: Engine, puller: Puller, task_id: str, **request: Any) -> Any:
    with read(engine) as tx:
        (found,) = puller.pull(tx, SPEC, XComPull(task_ids=[task_id], **request))
    return typedjson.decode(found)


def test_h17_an_instance_gets_its_element(engine: Engine) -> None:
    puller = Puller()
    assert [pulled(engine, puller, "list", element=i) for i in range(4)] == [
        "a", {"b": 1}, None, None,
    ]  # fmt: skip
    assert pulled(engine, puller, "list", measure=True) == 3
    assert pulled(engine, puller, "none", element=0) is None
    assert pulled(engine, puller, "none", measure=True) is None
    with pytest.raises(RoostException, match="no list, tuple or dict"):
        pulled(engine, puller, "m", element=0, map_index=0)


def test_h17_a_value_is_read_once_for_all_that_take_elements_of_it(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    puller = Puller()
    spy = Mock(wraps=xcoms.value_at)
    monkeypatch.setattr(xcoms, "value_at", spy)
    assert [pulled(engine, puller, "list", element=0) for _ in range(3)] == ["a"] * 3
    spy.assert_called_once()
    store(database_url, 1, ["new"], at=2)
    assert pulled(engine, puller, "list", element=0) == "new", "a new value is seen"


def test_h17_the_values_of_instances_are_gathered_in_order_without_gaps(engine: Engine) -> None:
    puller = Puller()
    assert pulled(engine, puller, "m", gather=True) == ["zero", "two", "three"]
    assert pulled(engine, puller, "m", gather=True, measure=True) == 3
    taken = [pulled(engine, puller, "m", gather=True, element=i) for i in range(4)]
    assert taken == ["zero", "two", "three", None]
    assert pulled(engine, puller, "m", gather=True, key="other") == []
