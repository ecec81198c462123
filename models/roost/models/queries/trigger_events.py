"""What became of poll triggers, as the claim in force tells it: an event, a failure, or a row.

A trigger has at most one event (S3): the unique index on ``trigger_event.trigger_id`` decides
races, whoever takes part in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from roost.models.engine import Sql, Tx
from roost.models.queries import jobs
from roost.support.trigger_wire import TriggerReport

__all__ = ["store"]

# Only the claim in force may say so; whoever comes next finds a row like those of a deferral.
_TO_ROW = Sql(
    "UPDATE trigger SET lane = r.lane, classpath = r.classpath, source = r.source, "
    "kwargs = r.kwargs, due_at = r.due_at, external_key = r.external_key, "
    "next_method = CASE WHEN r.ends = 1 THEN NULL ELSE trigger.next_method END, "
    "start = NULL, job_id = NULL "
    "FROM {rows:r | id bigint, epoch integer, lane text, classpath text, source text, kwargs text, "
    "due_at bigint, external_key text, ends integer} "
    "WHERE trigger.id = r.id AND trigger.epoch = r.epoch AND trigger.job_id = :job_id "
    "AND trigger.fired_at IS NULL RETURNING trigger.id"
)
# Locked first, so that a trigger that is cleared this very moment is left out, not an error; and in
# the order in which a scheduler locks those that time out.
_STORE = Sql(
    "WITH told AS MATERIALIZED (SELECT t.id, t.epoch, t.job_id, t.fired_at, t.ti_id, "
    "r.epoch AS told_epoch, r.kind, r.payload, r.error, r.xcoms "
    "FROM {rows:r | trigger_id bigint, epoch integer, kind text, payload text, error text, "
    "xcoms text} "
    "JOIN trigger t ON t.id = r.trigger_id ORDER BY t.id {for_update:t}) "
    "INSERT INTO trigger_event (trigger_id, epoch, kind, payload, error, xcoms, created_at) "
    "SELECT id, epoch, kind, payload, error, xcoms, :now FROM told "
    "WHERE job_id = :job_id AND epoch = told_epoch AND fired_at IS NULL AND ti_id IS NOT NULL "
    "ON CONFLICT (trigger_id) DO NOTHING RETURNING trigger_id"
)
_MARK = Sql(
    "UPDATE trigger SET fired_at = :now WHERE id IN (SELECT r.id FROM {rows:r | id bigint})"
)


def store(
    tx: Tx,
    job_id: int,
    reports: Sequence[TriggerReport],
    now: int,
    seal: Callable[[str], str] = str,
) -> list[int]:
    """Write what became of triggers, durably and before anything else happens.

    A report is taken only from the claim in force: a triggerer that lost its lease, or whose
    trigger was claimed, timed out or cleared meanwhile, writes nothing. The first event wins.
    One that turns out to wait as a row is made that row (D12).

    Args:
        tx: the transaction.
        job_id: whose claim it is.
        reports: what to write.
        now: the moment.
        seal: encrypts payloads (D22).

    Returns:
        The ids of the triggers of which this call stored what became of them.
    """
    if not reports or not jobs.owns_lease(tx, job_id):
        return []
    turned = _to_rows(tx, job_id, [report for report in reports if report.row is not None])
    return turned + _store(tx, job_id, [one for one in reports if one.row is None], now, seal)


def _to_rows(tx: Tx, job_id: int, reports: Sequence[TriggerReport]) -> list[int]:
    rows = [
        {
            "id": report.trigger_id,
            "epoch": report.epoch,
            "lane": report.row.lane,
            "classpath": report.row.classpath,
            "source": report.row.source,
            "kwargs": bytes(report.row.kwargs).decode(),
            "due_at": report.row.due_at,
            "external_key": report.row.key,
            "ends": int(report.row.next_method is None),
        }
        for report in reports
        if report.row is not None
    ]
    return [row.id for row in tx.all(_TO_ROW, job_id=job_id, rows=tx.rows(rows))] if rows else []


def _store(
    tx: Tx, job_id: int, reports: Sequence[TriggerReport], now: int, seal: Callable[[str], str]
) -> list[int]:
    if not reports:
        return []
    rows = tx.rows(
        [
            {
                "trigger_id": report.trigger_id,
                "epoch": report.epoch,
                "kind": report.kind,
                "payload": seal(bytes(report.payload).decode()) if report.kind == "fired" else None,
                "error": report.error,
                "xcoms": msgspec.json.encode(report.xcoms).decode() if report.xcoms else None,
            }
            for report in reports
        ]
    )
    stored = [row.trigger_id for row in tx.all(_STORE, job_id=job_id, rows=rows, now=now)]
    if stored:
        tx.run(_MARK, now=now, rows=tx.rows([{"id": trigger_id} for trigger_id in stored]))
    return stored
