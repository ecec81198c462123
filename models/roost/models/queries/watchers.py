"""Watchers of assets: what DAGs ask for, the triggers that run for them, what these see (D13).

A watcher's trigger is a row of ``trigger`` without a task: claimed, shared, struck and handed over
like any other poll trigger, after all of them. What it sees goes into ``asset_event``, the inbox of
the schedulers that ``roost assets emit`` writes into as well: one of them takes it up, and starts
the runs that wait for it, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from roost.models.engine import Sql, Tx
from roost.models.queries import jobs
from roost.models.sql import Row

__all__ = [
    "NAME",
    "Sighting",
    "WatcherRow",
    "rows",
    "set_watchers",
    "store",
    "sync",
]

# Which watcher a row ``t`` of ``trigger`` is of; NULL: it is a task's.
NAME = (
    "CASE WHEN t.watcher_hash IS NOT NULL THEN "
    "(SELECT min(w.name || ' of asset ' || w.uri) FROM asset_watcher w "
    "WHERE w.hash = t.watcher_hash) END"
)
# Behind every task: their ranks are weights of 32 bits (D16).
RANK = 1 << 40

_FORGET = Sql("DELETE FROM asset_watcher WHERE dag_id = :dag_id")
_ASK = Sql(
    "INSERT INTO asset_watcher (dag_id, uri, name, hash, classpath, source, kwargs, code_hash, "
    "fileloc, queue) SELECT :dag_id, r.uri, r.name, r.hash, r.classpath, r.source, r.kwargs, "
    ":code_hash, :fileloc, r.queue FROM {rows:r | uri text, name text, hash text, classpath text, "
    "source text, kwargs text, queue text}"
)
_ASKED = (
    "FROM asset_watcher w JOIN dag d ON d.dag_id = w.dag_id WHERE d.is_active AND NOT d.is_paused"
)
_REMOVE = Sql(
    "DELETE FROM trigger WHERE watcher_hash IS NOT NULL "
    f"AND watcher_hash NOT IN (SELECT w.hash {_ASKED})"
)
_ADD = Sql(
    "INSERT INTO trigger (lane, classpath, source, kwargs, next_kwargs, code_hash, fileloc, queue, "
    "created_at, rank, watcher_hash) SELECT 'poll', w.classpath, w.source, w.kwargs, '{{}}', "
    f"w.code_hash, w.fileloc, w.queue, {{now}}, :rank, w.hash {_ASKED} "
    "AND NOT EXISTS (SELECT 1 FROM trigger t WHERE t.watcher_hash = w.hash) "
    "ORDER BY w.hash ON CONFLICT DO NOTHING"
)
# Locked, so that a hand-over waits for what is stored under the claim that it ends.
_CLAIMED = Sql(
    "SELECT t.id, t.epoch, t.watcher_hash FROM {rows:r | trigger_id bigint, epoch integer} "
    "JOIN trigger t ON t.id = r.trigger_id WHERE t.epoch = r.epoch AND t.job_id = :job_id "
    "AND t.watcher_hash IS NOT NULL {for_update:t}"
)
# A key outlives the trigger: its file may be edited. An event without one has a number under the
# claim, so that a commit whose answer was lost is not stored twice.
_SEE = Sql(
    "INSERT INTO asset_event (uri, at, extra, watcher, ref) "
    "SELECT w.uri, {now}, r.extra, min(w.name), "
    "CASE WHEN r.key IS NULL THEN r.ref ELSE 'key ' || min(w.name) || ' ' || r.key END "
    "FROM {rows:r | hash text, number bigint, ref text, key text, extra text} "
    "JOIN asset_watcher w ON w.hash = r.hash "
    "GROUP BY w.uri, r.number, r.ref, r.key, r.extra ORDER BY r.number, w.uri "
    "ON CONFLICT DO NOTHING"
)
_TROUBLE = Sql(
    "UPDATE trigger SET trouble = r.trouble, trouble_at = {now} "
    "FROM {rows:r | id bigint, trouble text} "
    "WHERE trigger.id = r.id AND (r.trouble IS NOT NULL OR "
    "(trigger.trouble IS NOT NULL AND trigger.strikes = 0))"
)
_ROWS = Sql(
    "SELECT w.uri, w.name, w.dag_id, w.classpath, d.is_paused, t.id AS trigger_id, t.strikes, "
    "t.trouble, t.trouble_at, j.hostname, j.pid FROM asset_watcher w "
    "JOIN dag d ON d.dag_id = w.dag_id LEFT JOIN trigger t ON t.watcher_hash = w.hash "
    "LEFT JOIN job j ON j.id = t.job_id WHERE d.is_active ORDER BY w.uri, w.name, w.dag_id"
)


class WatcherRow(NamedTuple):
    """A watcher that a DAG asks for; ``hash`` names the trigger that it shares with its equals."""

    uri: str
    name: str
    hash: str
    classpath: str
    source: str
    kwargs: str
    queue: str


class Sighting(NamedTuple):
    """What a watcher's trigger tells under one claim.

    Attributes:
        number: greater than those of what it told before.
        extra: of the asset event; None: it is in trouble instead.
        key: of what it has seen: at most one event of a key is kept.
        trouble: why it is begun anew.
    """

    trigger_id: int
    epoch: int
    number: int
    extra: str | None = None
    key: str | None = None
    trouble: str | None = None


def set_watchers(
    tx: Tx, dag_id: str, watchers: Sequence[WatcherRow], *, code_hash: str, fileloc: str
) -> None:
    """Say what a DAG asks to be watched; :func:`sync` makes it so."""
    tx.run(_FORGET, dag_id=dag_id)
    if watchers:
        rows_ = tx.rows([one._asdict() for one in watchers])
        tx.run(_ASK, dag_id=dag_id, code_hash=code_hash, fileloc=fileloc, rows=rows_)


def sync(tx: Tx) -> int:
    """Have a trigger for all that unpaused DAGs ask to be watched, and no other; gives how many
    came or went.

    In the transaction that changes what is asked for. Should two of them miss each other's change,
    the scheduler's chore mends it.
    """
    return tx.run(_REMOVE) + tx.run(_ADD, rank=RANK)


def store(tx: Tx, job_id: int, seen: Sequence[Sighting]) -> set[tuple[int, int]]:
    """Store what triggers of watchers saw, as events of their assets.

    Returns:
        Trigger and number of each whose claim is in force: it is stored, now or before.
    """
    if not seen or not jobs.owns_lease(tx, job_id):
        return set()
    asked = {(one.trigger_id, one.epoch) for one in seen}
    wanted = tx.rows([{"trigger_id": id_, "epoch": epoch} for id_, epoch in sorted(asked)])
    found = {
        (row.id, row.epoch): row.watcher_hash
        for row in tx.all(_CLAIMED, job_id=job_id, rows=wanted)
    }
    valid = [one for one in seen if (one.trigger_id, one.epoch) in found]
    events = [
        {
            "hash": found[one.trigger_id, one.epoch],
            "number": one.number,
            "ref": f"{one.trigger_id}.{one.epoch}.{one.number}",
            "key": one.key,
            "extra": one.extra,
        }
        for one in valid
        if one.extra is not None
    ]
    if events:
        tx.run(_SEE, rows=tx.rows(events))
    last = {one.trigger_id: one.trouble for one in valid}
    if last:
        told = [{"id": id_, "trouble": trouble} for id_, trouble in sorted(last.items())]
        tx.run(_TROUBLE, rows=tx.rows(told))
    return {(one.trigger_id, one.number) for one in valid}


def rows(tx: Tx) -> Sequence[Row]:
    """Every watcher of an active DAG, with its trigger where there is one."""
    return tx.all(_ROWS)
