"""Waiting tasks by the thousand, as rows copied from one that a task really made."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.site import Site
from roost.models.engine import Sql, Tx, transact
from roost.models.tables import task_instance, trigger

__all__ = ["copy_waits"]

# One statement of ours may take 30 s on PostgreSQL.
_AT_ONCE = 50_000


def copy_waits(site: Site, number: int, instead: Mapping[str, str] | None = None) -> None:
    """Copy the one deferred task instance and its trigger ``number`` times, as mapped instances.

    In transactions of 50,000: so many appear at once.

    Args:
        site: its database holds one deferred task instance, which is not mapped.
        number: how many are wanted; they get the map indexes from 1.
        instead: SQL for columns of the trigger; ``t.map_index`` is the copy's number.
    """

    triggers = _triggers(instead or {})

    def insert(tx: Tx) -> None:
        for statement in (_INSTANCES, triggers, _LINK):
            tx.run(statement, **window)

    for done in range(0, number, _AT_ONCE):
        window = {"above": done, "most": min(number, done + _AT_ONCE)}
        transact(site.engine, insert)


def _names(columns: list[str], instead: Mapping[str, str], of: str) -> str:
    return ", ".join(instead.get(name, f"{of}.{name}") for name in columns)


_COPIES = "map_index > :above AND map_index <= :most"
_columns = [column.name for column in task_instance.columns if column.name != "id"]
_INSTANCES = Sql(
    f"INSERT INTO task_instance ({', '.join(_columns)}) SELECT "  # noqa: S608
    + _names(_columns, {"map_index": "n.i", "trigger_id": "NULL"}, "s")
    + " FROM task_instance s, (WITH RECURSIVE n(i) AS (SELECT CAST(:above AS bigint) + 1 UNION ALL "
    "SELECT i + 1 FROM n WHERE i < :most) SELECT i FROM n) AS n "
    "WHERE s.map_index = -1 AND s.state = 'deferred'"
)
_LINK = Sql(
    "UPDATE task_instance SET trigger_id = "  # noqa: S608
    f"(SELECT g.id FROM trigger g WHERE g.ti_id = task_instance.id) WHERE {_COPIES}"
)


def _triggers(instead: Mapping[str, str]) -> Sql:
    columns = [column.name for column in trigger.columns if column.name != "id"]
    made = {"ti_id": "t.id", "job_id": "NULL", "epoch": "0", **instead}
    return Sql(
        f"INSERT INTO trigger ({', '.join(columns)}) SELECT {_names(columns, made, 's')} "  # noqa: S608
        "FROM trigger s JOIN task_instance o ON o.id = s.ti_id AND o.map_index = -1 "
        "JOIN task_instance t ON t.dag_run_id = o.dag_run_id AND t.task_id = o.task_id "
        f"WHERE t.{_COPIES.replace('AND ', 'AND t.')}"
    )
