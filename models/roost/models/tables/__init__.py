"""The metadata schema. Alembic's migrations must equal it; a test compares them.

Every moment is a BIGINT of microseconds since the epoch, UTC. What
must never be true of the rows of one table stands here as partial unique indexes and CHECKs, so
that the database refuses the bug first; tests/support/checker.py has all of the invariants.
"""

from __future__ import annotations

from roost.models.tables.assets import (
    asset_event,
    asset_listener,
    asset_pending,
    asset_use,
    asset_watcher,
)
from roost.models.tables.base import metadata
from roost.models.tables.daemons import id_block, job
from roost.models.tables.dags import (
    backfill,
    dag,
    dag_file,
    dag_source,
    dag_usage,
    dag_version,
    task_usage,
)
from roost.models.tables.deferral import (
    external_event,
    trigger,
    trigger_code,
    trigger_event,
    trigger_kill,
)
from roost.models.tables.limits import deadline, sla_miss
from roost.models.tables.runs import dag_run, dispatch, event_log, task_instance
from roost.models.tables.stores import connection, pool, variable, xcom

__all__ = [
    "asset_event",
    "asset_listener",
    "asset_pending",
    "asset_use",
    "asset_watcher",
    "backfill",
    "connection",
    "dag",
    "dag_file",
    "dag_run",
    "dag_source",
    "dag_usage",
    "dag_version",
    "deadline",
    "dispatch",
    "event_log",
    "external_event",
    "id_block",
    "job",
    "metadata",
    "pool",
    "sla_miss",
    "task_instance",
    "task_usage",
    "trigger",
    "trigger_code",
    "trigger_event",
    "trigger_kill",
    "variable",
    "xcom",
]
