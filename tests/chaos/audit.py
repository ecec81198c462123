"""What the tables do not keep: a log of every change of triggers, events and leases.

Rules of the database itself write it, in the transaction that changes the row. So whoever writes,
by whatever statement, at whatever moment, is seen; and what was rolled back is not.
"""

from __future__ import annotations

from sqlalchemy import Engine, text

__all__ = ["install"]

_COLUMNS = "at, what, trigger_id, ti_id, dispatch_id, lane, epoch, job_id, fired, kind, owner_ok"
_TABLE = """
CREATE TABLE chaos_audit (
    id {key}, at bigint NOT NULL, what text NOT NULL, trigger_id bigint, ti_id bigint,
    dispatch_id bigint, lane text, epoch integer, job_id bigint, fired integer, kind text,
    owner_ok integer)
"""
_NOW = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
    "sqlite": "roost_now()",
}
_TRIGGER_ROW = (
    "INSERT INTO chaos_audit ({columns}) VALUES ({{now}}, '{what}', {row}.id, {row}.ti_id, "
    "{row}.dispatch_id, {row}.lane, {row}.epoch, {row}.job_id, "
    "CASE WHEN {row}.fired_at IS NULL THEN 0 ELSE 1 END, {row}.queue, NULL)"
)
# Beside the event: the claim in force, and whether the owner's lease has not been ended.
_EVENT_ROW = (
    "INSERT INTO chaos_audit ({columns}) SELECT {{now}}, '{what}', {row}.trigger_id, t.ti_id, "
    "t.dispatch_id, t.lane, {row}.epoch, t.job_id, t.epoch, {row}.kind, "
    "CASE WHEN t.job_id IS NULL OR EXISTS (SELECT 1 FROM job WHERE job.id = t.job_id "
    "AND job.ended_at IS NULL) THEN 1 ELSE 0 END FROM trigger t WHERE t.id = {row}.trigger_id"
)
_KILL_ROW = (
    "INSERT INTO chaos_audit ({columns}) VALUES ({{now}}, '{what}', {row}.id, NULL, "
    "{row}.dispatch_id, NULL, {row}.epoch, {row}.job_id, NULL, {row}.classpath, NULL)"
)
_JOB_ROW = (
    "INSERT INTO chaos_audit ({columns}) VALUES ({{now}}, '{what}', NULL, NULL, NULL, "
    "{row}.kind, {row}.pid, {row}.id, NULL, {row}.host_id, "
    "CASE WHEN {row}.lease_until >= {{now}} THEN 1 ELSE 0 END)"
)
_WATCHED = (
    ("trigger", "INSERT", "", "made", "NEW", _TRIGGER_ROW),
    ("trigger", "UPDATE", "", "changed", "NEW", _TRIGGER_ROW),
    ("trigger", "DELETE", "", "gone", "OLD", _TRIGGER_ROW),
    ("trigger_event", "INSERT", "", "event", "NEW", _EVENT_ROW),
    ("trigger_kill", "INSERT", "", "killed", "NEW", _KILL_ROW),
    ("job", "INSERT", "", "joined", "NEW", _JOB_ROW),
    ("job", "UPDATE", "NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL", "left", "NEW", _JOB_ROW),
)


def install(engine: Engine) -> None:
    """Have the database write ``chaos_audit`` from now on; once for a database."""
    dialect = engine.dialect.name
    key = "bigserial PRIMARY KEY" if dialect == "postgresql" else "integer PRIMARY KEY"
    with engine.begin() as db:
        db.execute(text(_TABLE.format(key=key)))
        for table, event, when, what, row, insert in _WATCHED:
            insert = insert.format(columns=_COLUMNS, what=what, row=row)
            insert = insert.format(now=_NOW[dialect])
            for statement in _rule(dialect, table, event, when, what, insert):
                db.exec_driver_sql(statement)


def _rule(
    dialect: str, table: str, event: str, when: str, what: str, insert: str
) -> tuple[str, ...]:
    name = f"chaos_{table}_{what}"
    condition = f" WHEN ({when})" if when else ""
    rule = f"CREATE TRIGGER {name} AFTER {event} ON {table} FOR EACH ROW{condition}"
    if dialect == "sqlite":
        return (f"{rule} BEGIN {insert}; END",)
    body = f"BEGIN {insert}; RETURN NULL; END"
    function = f"CREATE FUNCTION {name}() RETURNS trigger AS $$ {body} $$ LANGUAGE plpgsql"
    return (function, f"{rule} EXECUTE FUNCTION {name}()")
