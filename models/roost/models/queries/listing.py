"""Read-only statements behind the command line's listings."""

from __future__ import annotations

from typing import Any

from roost.models.engine import Sql, Tx
from roost.models.queries import jobs
from roost.support.clock import SECOND
from roost.support.processes import host_id, is_alive

__all__ = [
    "active_versions",
    "dag_details",
    "dag_ids",
    "dag_rows",
    "dag_version",
    "import_errors",
    "instance_rows",
    "live_jobs",
    "open_jobs",
    "pool_rows",
    "run_conf",
    "run_ids",
    "run_row",
    "run_rows",
    "trigger_counts",
    "version_count",
]

_DAGS = Sql(
    "SELECT dag_id, fileloc, owners, is_paused, schedule, next_run_after "
    "FROM dag WHERE is_active ORDER BY dag_id"
)
_VERSIONS = Sql("SELECT count(*) FROM dag_version WHERE dag_id = :dag_id")
_DAG_IDS = Sql("SELECT dag_id FROM dag ORDER BY dag_id")
_DAG = Sql(
    "SELECT d.dag_id, d.fileloc, d.version_id, d.is_paused, d.paused_reason, d.is_active, "
    "d.schedule, d.owners, d.tags, d.description, d.upcoming, d.next_run_after, "
    "d.next_interval_start, d.next_interval_end, d.updated_at, v.code_hash, v.data, u.runs, "
    "u.max_runs FROM dag d "
    "JOIN dag_version v ON v.id = d.version_id LEFT JOIN dag_usage u ON u.dag_id = d.dag_id "
    "WHERE d.dag_id = :dag_id"
)
_VERSION = Sql("SELECT data FROM dag_version WHERE id = :version_id")
_IMPORT_ERRORS = Sql(
    "SELECT fileloc, error, parsed_at FROM dag_file WHERE error IS NOT NULL ORDER BY fileloc"
)
_RUN_COLUMNS = (
    "id, dag_id, run_id, run_type, state, version_id, logical_date, interval_start, "
    "interval_end, run_after, queued_at, start_date, end_date"
)
_RUNS = Sql(
    f"SELECT {_RUN_COLUMNS} FROM dag_run WHERE dag_id = :dag_id "
    "AND (CAST(:state AS text) IS NULL OR state = :state) ORDER BY run_after DESC, id DESC"
)
_RUN_IDS = Sql(
    "SELECT run_id FROM dag_run WHERE dag_id = :dag_id ORDER BY run_after DESC, id DESC LIMIT 1000"
)
_RUN = Sql(f"SELECT {_RUN_COLUMNS} FROM dag_run WHERE dag_id = :dag_id AND run_id = :run_id")
_CONF = Sql("SELECT conf FROM dag_run WHERE id = :run_key")
_INSTANCES = Sql(
    "SELECT id, task_id, map_index, state, try_number, start_date, end_date, hostname, retry_at, "
    "pool, pool_slots, queue, priority_weight, dispatch_id, trigger_id, scheduled_at, queued_at, "
    "map_name FROM task_instance WHERE dag_run_id = :run_key ORDER BY id"
)
_TRIGGER_COUNTS = Sql(
    "SELECT job_id, count(*) AS running, sum(CASE WHEN strikes > 0 THEN 1 ELSE 0 END) AS struck, "
    "sum(CASE WHEN strikes > 1 THEN 1 ELSE 0 END) AS quarantined FROM trigger "
    "WHERE lane = 'poll' AND fired_at IS NULL AND job_id IS NOT NULL GROUP BY job_id"
)
_POOLS = Sql(
    "SELECT pool, slots, used, deferred_percent, description FROM pool "
    "WHERE CAST(:pool AS text) IS NULL OR pool = :pool ORDER BY pool"
)
_POOL_STATES = Sql(
    "SELECT i.pool, i.state, sum(i.pool_slots) AS slots FROM dag_run r "
    "JOIN task_instance i ON i.dag_run_id = r.id WHERE r.end_date IS NULL "
    "AND i.state IN ('scheduled', 'queued', 'running', 'deferred') GROUP BY i.pool, i.state"
)
_JOBS = Sql(
    "SELECT id, kind, hostname, host_id, pid, pid_start, started_at, detail, "
    "{now} - lease_until + CAST(:ttl AS bigint) AS lease_age, lease_until < {now} AS lapsed "
    "FROM job WHERE ended_at IS NULL ORDER BY kind, id"
)
_ACTIVE_VERSIONS = Sql(
    "SELECT d.dag_id, v.data FROM dag d JOIN dag_version v ON v.id = d.version_id "
    "WHERE d.is_active ORDER BY d.dag_id"
)


def dag_rows(tx: Tx) -> list[Any]:
    """Every DAG that a file defines."""
    return list(tx.all(_DAGS))


def active_versions(tx: Tx) -> list[Any]:
    """The newest version of every DAG that a file defines; ``data`` as JSON."""
    return list(tx.all(_ACTIVE_VERSIONS))


def dag_ids(tx: Tx) -> list[str]:
    """The id of every DAG ever parsed."""
    return [row.dag_id for row in tx.all(_DAG_IDS)]


def dag_details(tx: Tx, dag_id: str) -> Any | None:
    """One DAG with its current version's ``data`` (SerializedDag) and its active runs."""
    return tx.first(_DAG, dag_id=dag_id)


def dag_version(tx: Tx, version_id: int) -> str:
    """``data`` of one version: the one that a run was created with."""
    return str(tx.scalar(_VERSION, version_id=version_id))


def version_count(tx: Tx, dag_id: str) -> int:
    """How many versions of a DAG are kept."""
    return int(tx.scalar(_VERSIONS, dag_id=dag_id) or 0)


def import_errors(tx: Tx) -> list[Any]:
    """Every DAG file whose last import failed."""
    return list(tx.all(_IMPORT_ERRORS))


def run_rows(tx: Tx, dag_id: str, state: str | None = None) -> list[Any]:
    """The runs of a DAG, newest first."""
    return list(tx.all(_RUNS, dag_id=dag_id, state=state))


def run_ids(tx: Tx, dag_id: str) -> list[str]:
    """The ids of the newest 1000 runs of a DAG."""
    return [row.run_id for row in tx.all(_RUN_IDS, dag_id=dag_id)]


def run_conf(tx: Tx, run_key: int) -> str:
    """The conf of one run, typed JSON."""
    return str(tx.scalar(_CONF, run_key=run_key))


def run_row(tx: Tx, dag_id: str, run_id: str) -> Any | None:
    """One run."""
    return tx.first(_RUN, dag_id=dag_id, run_id=run_id)


def instance_rows(tx: Tx, run_key: int) -> list[Any]:
    """The task instances of a run, in order of creation: every task after its upstream."""
    return list(tx.all(_INSTANCES, run_key=run_key))


def trigger_counts(tx: Tx) -> list[Any]:
    """How many poll triggers each triggerer runs, and how many of them are in trouble."""
    return list(tx.all(_TRIGGER_COUNTS))


def pool_rows(tx: Tx, pool: str | None = None) -> list[tuple[Any, dict[str, int]]]:
    """Pools, each with the slots that its task instances want or hold, by state."""
    states: dict[str, dict[str, int]] = {}
    for row in tx.all(_POOL_STATES):
        states.setdefault(row.pool, {})[row.state] = int(row.slots)
    return [(row, states.get(row.pool, {})) for row in tx.all(_POOLS, pool=pool)]


def open_jobs(tx: Tx) -> list[Any]:
    """Daemons that have not ended by their rows, whether they live or not."""
    return list(tx.all(_JOBS, ttl=jobs.LEASE_TTL_S * SECOND))


def live_jobs(tx: Tx) -> list[Any]:
    """Daemons that live: on this host their process tells, elsewhere their lease."""
    here = host_id()
    return [
        row
        for row in open_jobs(tx)
        if (is_alive(row.pid, row.pid_start) if row.host_id == here else not row.lapsed)
    ]
