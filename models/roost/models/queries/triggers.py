"""What there is for a triggerer to do, and whose poll triggers are whose: a look, claims, strikes.

Every claim has an epoch, and what is said of a trigger counts only under the claim in force.
``fired_at`` takes a trigger out of the partial indexes below, so waiting rows are all that these
statements meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from roost.models.engine import Sql, Tx
from roost.models.queries import jobs, watchers
from roost.models.queries.external import ANY_HEARD, HEARD
from roost.models.queries.trigger_specs import sources
from roost.models.sql import Row
from roost.support.labels import task_label, watcher_label

__all__ = [
    "Label",
    "Look",
    "Place",
    "Strike",
    "claim",
    "counts",
    "give_back",
    "held",
    "labels",
    "look",
    "of_same_code",
    "owners_without_job",
    "place",
    "present",
    "release",
    "strike",
]

# Owners of poll triggers: one probe of the index for each, however many triggers it has.
_OWNER = (
    "RECURSIVE owner(id) AS ("
    "SELECT min(job_id) FROM trigger WHERE lane = 'poll' AND fired_at IS NULL UNION ALL "
    "SELECT (SELECT min(job_id) FROM trigger "
    "WHERE lane = 'poll' AND fired_at IS NULL AND job_id > owner.id) "
    "FROM owner WHERE owner.id IS NOT NULL), "
    "ownerless AS (SELECT owner.id FROM owner WHERE owner.id IS NOT NULL AND NOT EXISTS "
    "(SELECT 1 FROM job WHERE job.id = owner.id AND job.ended_at IS NULL)) "
)
_OWNERLESS = Sql(f"WITH {_OWNER} SELECT id FROM ownerless")
_LOOK = Sql(
    f"WITH {_OWNER}, {ANY_HEARD} SELECT "
    f"(SELECT count(*) FROM leap WHERE {HEARD}) AS heard, "
    "(SELECT min(due_at) FROM trigger WHERE lane = 'timer' AND fired_at IS NULL) AS next_due, "
    "(SELECT id FROM trigger WHERE lane = 'poll' AND fired_at IS NULL AND job_id IS NULL "
    "ORDER BY job_id, rank, id LIMIT 1) AS waiting, "
    "(SELECT count(*) FROM ownerless) AS ownerless, "
    "(SELECT min(lease_until) - {now} FROM job WHERE ended_at IS NULL AND kind = 'triggerer' "
    "AND id <> :job_id) AS rivals_left, "
    "(SELECT count(*) FROM trigger_kill k WHERE k.job_id = :job_id OR ((k.job_id IS NULL OR "
    "NOT EXISTS (SELECT 1 FROM job j WHERE j.id = k.job_id AND j.ended_at IS NULL)) "
    "AND (k.retry_at IS NULL OR k.retry_at <= {now}))) AS kills, "
    "count(*) AS held, CAST(coalesce(sum(id), 0) AS bigint) AS held_sum "
    "FROM trigger WHERE lane = 'poll' AND fired_at IS NULL AND job_id = :job_id"
)
# The CTE is a fence: an inlined LIMIT below an UPDATE may lock more rows than it returns.
# ORDER BY names the whole index, though job_id is NULL in all of its rows: for ORDER BY id alone
# PostgreSQL walks the primary key, past a million timers, whose job_id is NULL as well.
_CLAIM = (
    "WITH pick AS ("
    "SELECT id FROM trigger WHERE lane = 'poll' AND fired_at IS NULL AND {owner} {queues}"
    "ORDER BY job_id, rank, id LIMIT :batch {{skip_locked}}) "
    "UPDATE trigger SET job_id = :job_id, epoch = epoch + 1 "
    "WHERE id IN (SELECT id FROM pick) RETURNING id, epoch, rank"
)
_QUEUES = "AND queue IN (SELECT q.queue FROM {{rows:q = queues | queue text}}) "
_CLAIM_FREE = Sql(_CLAIM.format(owner="job_id IS NULL", queues=""))
_CLAIM_FREE_QUEUES = Sql(_CLAIM.format(owner="job_id IS NULL", queues=_QUEUES.format()))
# Those that were to be claimed last. What this moment fires or is cleared keeps its lock: skipped.
_GIVE_BACK = Sql(
    "WITH pick AS ("
    "SELECT id FROM trigger WHERE lane = 'poll' AND fired_at IS NULL AND job_id = :job_id "
    "AND queue IN (SELECT q.queue FROM {rows:q = queues | queue text}) "
    "ORDER BY job_id DESC, rank DESC, id DESC LIMIT :count {skip_locked}) "
    "UPDATE trigger SET job_id = NULL WHERE id IN (SELECT id FROM pick) "
    "AND job_id = :job_id AND fired_at IS NULL RETURNING id"
)
_COUNTS = Sql(
    "SELECT job_id, queue, count(*) AS number FROM trigger "
    "WHERE lane = 'poll' AND fired_at IS NULL GROUP BY job_id, queue"
)
_DISOWN = Sql(
    "UPDATE trigger SET job_id = NULL WHERE lane = 'poll' AND fired_at IS NULL AND job_id = :job_id"
)
_HELD = Sql(
    "SELECT id, epoch FROM trigger WHERE lane = 'poll' AND fired_at IS NULL AND job_id = :job_id "
    "ORDER BY rank, id"
)
_LABELS = Sql(
    "SELECT t.id, run.dag_id, run.run_id, ti.task_id, ti.map_index, "
    f"{watchers.NAME} AS watcher FROM {{rows:r | id bigint}} JOIN trigger t ON t.id = r.id "
    "LEFT JOIN task_instance ti ON ti.id = t.ti_id LEFT JOIN dag_run run ON run.id = t.dag_run_id"
)
_PRESENT = Sql("SELECT t.id FROM {rows:r | id bigint} JOIN trigger t ON t.id = r.id")
# Of the claim in force only: what an older one was accused of is its successor's no more. What was
# judged at this moment was written before, by a commit whose answer was lost.
_STRIKE = Sql(
    "UPDATE trigger SET strikes = trigger.strikes + "
    "CASE WHEN trigger.judged_at = :now THEN 0 ELSE r.strikes END, "
    "trouble = r.trouble, trouble_at = :now, judged_at = :now "
    "FROM {rows:r | id bigint, epoch integer, strikes integer, trouble text} "
    "WHERE trigger.id = r.id AND trigger.epoch = r.epoch AND trigger.job_id = :job_id "
    "AND trigger.fired_at IS NULL RETURNING trigger.id, trigger.strikes"
)
_OF_CODE = Sql(
    "SELECT o.id, o.epoch, o.source, o.code_hash FROM trigger t "
    "JOIN trigger o ON o.code_hash = t.code_hash "
    "WHERE t.id = :trigger_id AND t.job_id = :job_id AND o.lane = 'poll' "
    "AND o.fired_at IS NULL AND o.job_id = :job_id"
)
_PLACE = Sql(
    "SELECT run.dag_id, run.run_id FROM trigger t JOIN dag_run run ON run.id = t.dag_run_id "
    "WHERE t.id = :trigger_id AND t.fired_at IS NULL "
    "UNION ALL SELECT dag_id, run_id FROM trigger_kill WHERE id = :trigger_id"
)


class Strike(NamedTuple):
    """What is said against a trigger under one claim.

    Attributes:
        strikes: as many more; 0 only keeps the trouble.
        trouble: what it did, for people.
    """

    trigger_id: int
    epoch: int
    strikes: int
    trouble: str


class Label(NamedTuple):
    """Whose a trigger is.

    Attributes:
        text: the task or the watcher, in words for a log.
        dag_id: of the task; empty for a watcher, as is ``task_id``.
    """

    text: str
    dag_id: str
    task_id: str


class Look(NamedTuple):
    """What a triggerer sees at a glance.

    Attributes:
        next_due: when the next timer is due, in microseconds; None without timers.
        waiting: a poll trigger has no owner.
        held: how many poll triggers the asking job owns.
        held_sum: the sum of their ids; with ``held`` it tells whether anything changed.
        ownerless: jobs own poll triggers although they have ended, or their row is gone.
        rivals_left: microseconds until the first lease of another triggerer lapses, negative
            when it has; None when there is no other.
        heard: an event of a key is there for which a trigger waits, or a longer look is needed
            to tell.
        kills: how many triggers are to be killed, by the asking job or by anybody (D10).
    """

    next_due: int | None
    waiting: bool
    held: int
    held_sum: int
    ownerless: bool
    rivals_left: int | None
    heard: bool
    kills: int


class Place(NamedTuple):
    """The run that a trigger's task belongs to."""

    dag_id: str
    run_id: str


def look(tx: Tx, job_id: int) -> Look:
    """One statement that tells what there is to do; all an idle triggerer asks."""
    row = tx.first(_LOOK, job_id=job_id)
    assert row is not None  # noqa: S101 - an aggregate always gives a row
    return Look(
        row.next_due,
        row.waiting is not None,
        row.held,
        row.held_sum,
        row.ownerless > 0,
        row.rivals_left,
        row.heard > 0,
        row.kills,
    )


def owners_without_job(tx: Tx) -> list[int]:
    """Jobs that own poll triggers although they have ended, or whose row is gone."""
    return [row.id for row in tx.all(_OWNERLESS)]


def release(tx: Tx, job_id: int) -> int:
    """Give every trigger of a job back; any triggerer may claim them now."""
    return tx.run(_DISOWN, job_id=job_id)


def counts(tx: Tx) -> dict[tuple[int | None, str], int]:
    """How many poll triggers wait by owner (None: nobody) and queue. It reads them all."""
    return {(row.job_id, row.queue): row.number for row in tx.all(_COUNTS)}


def give_back(tx: Tx, job_id: int, count: int, queues: Iterable[str]) -> int:
    """Let others have up to ``count`` of a job's triggers of these queues; gives how many.

    The claim stays what the next one raises: an event of the old one is refused from here on.
    """
    wanted = tx.rows([{"queue": queue} for queue in queues])
    return len(tx.all(_GIVE_BACK, job_id=job_id, count=count, queues=wanted))


def claim(tx: Tx, job_id: int, batch: int, queues: Sequence[str] = ()) -> dict[int, int]:
    """Own up to ``batch`` poll triggers that nobody owns: by weight of their tasks, then age (D16).

    Args:
        job_id: the claiming triggerer; without its lease nothing is claimed.
        batch: at most this many.
        queues: only triggers of these queues; empty: of every queue.

    Returns:
        The epoch of each claim by trigger id, in this order.
    """
    if not jobs.owns_lease(tx, job_id):
        return {}
    if queues:
        wanted = tx.rows([{"queue": queue} for queue in queues])
        rows = tx.all(_CLAIM_FREE_QUEUES, job_id=job_id, batch=batch, queues=wanted)
    else:
        rows = tx.all(_CLAIM_FREE, job_id=job_id, batch=batch)
    # What an UPDATE returns is in no order, whichever its rows were picked in.
    rows = sorted(rows, key=lambda row: (row.rank, row.id))
    return {row.id: row.epoch for row in rows}


def held(tx: Tx, job_id: int) -> dict[int, int]:
    """Epoch by id of every trigger that a job owns and that has not fired, heaviest first (D16)."""
    return {row.id: row.epoch for row in tx.all(_HELD, job_id=job_id)}


def present(tx: Tx, trigger_ids: Iterable[int]) -> set[int]:
    """Which of these triggers have a row, whoever owns it."""
    rows = tx.rows([{"id": trigger_id} for trigger_id in trigger_ids])
    return {row.id for row in tx.all(_PRESENT, rows=rows)}


def labels(tx: Tx, trigger_ids: Iterable[int]) -> dict[int, Label]:
    """Which task waits for each of these triggers, or which watcher it is of, by its id."""
    rows = tx.rows([{"id": trigger_id} for trigger_id in trigger_ids])
    found = tx.all(_LABELS, rows=rows)
    return {row.id: _label(row) for row in found if row.task_id is not None or row.watcher}


def _label(row: Row) -> Label:
    if row.watcher is not None:
        return Label(watcher_label(row.watcher), "", "")
    text = task_label(row.dag_id, row.task_id, row.map_index, row.run_id)
    return Label(text, row.dag_id, row.task_id)


def strike(tx: Tx, job_id: int, strikes: Sequence[Strike], now: int) -> dict[int, int]:
    """Write down what triggers did to their runner (D20); at most one entry for each.

    Args:
        now: the moment of this judgement, in microseconds. With the same moment once more nothing
            is added, so the step may be repeated; another judgement needs another moment.

    Returns:
        The strikes that each has now; those that fired or are not ours any more are left out.
    """
    if not strikes or not jobs.owns_lease(tx, job_id):
        return {}
    rows = [
        {"id": one.trigger_id, "epoch": one.epoch, "strikes": one.strikes, "trouble": one.trouble}
        for one in strikes
    ]
    found = tx.all(_STRIKE, job_id=job_id, rows=tx.rows(rows), now=now)
    return {row.id: row.strikes for row in found}


def of_same_code(tx: Tx, job_id: int, trigger_id: int) -> dict[int, int]:
    """Epoch by id of all triggers of a job whose class is in the DAG file version of this one's."""
    found = tx.all(_OF_CODE, job_id=job_id, trigger_id=trigger_id)
    classes = {
        name for row in sources(tx, {row.code_hash for row in found}) for name in row.triggers
    }
    return {row.id: row.epoch for row in found if row.source in classes}


def place(tx: Tx, trigger_id: int) -> Place | None:
    """Where a trigger belongs; None when it has fired or is gone."""
    row = tx.first(_PLACE, trigger_id=trigger_id)
    return None if row is None else Place(row.dag_id, row.run_id)
