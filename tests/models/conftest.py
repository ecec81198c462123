"""An engine and a few rows to move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from roost.models import tables
from roost.models.engine import open_engine
from tests.support.reused import database_url, postgresql_url

__all__ = ["database_url", "engine", "postgresql_url", "run_key"]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine as the daemons open it."""
    made = open_engine(database_url, sqlite_synchronous="OFF")
    yield made
    made.dispose()


@pytest.fixture
def run_key(engine: Engine) -> int:
    """A running run of a DAG ``d``."""
    with engine.begin() as db:
        version = db.execute(
            tables.dag_version.insert()
            .values(dag_id="d", hash="h", code_hash="c", fileloc="f", data="{}", created_at=0)
            .returning(tables.dag_version.c.id)
        ).scalar_one()
        key = db.execute(
            sa.insert(tables.dag_run)
            .values(
                dag_id="d",
                run_id="r",
                run_type="manual",
                state="running",
                version_id=version,
                run_after=0,
                queued_at=0,
            )
            .returning(tables.dag_run.c.id)
        ).scalar_one()
    return int(key)
