"""When tasks ended, as the database has it."""

from __future__ import annotations

from benchmarks.site import Site
from roost.models.engine import Sql

__all__ = ["last_end"]

_LAST_END = Sql(
    "SELECT max(t.end_date) AS at FROM task_instance t JOIN dag_run r ON r.id = t.dag_run_id "
    "WHERE r.run_id LIKE :runs"
)


def last_end(site: Site, runs: str) -> float:
    """The end of the last task of the runs LIKE ``runs``: wall clock in seconds."""
    (row,) = site.rows(_LAST_END, runs=runs)
    return float(row.at) / 1e6
