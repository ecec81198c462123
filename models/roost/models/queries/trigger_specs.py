"""What a runner is told of the triggers it is to run, and of the code they are made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from roost.exceptions import DecryptionError
from roost.models.engine import Sql, Tx
from roost.models.queries import watchers
from roost.models.queries.task_specs import TASK_COLUMNS, task_spec
from roost.models.sql import Row
from roost.support.crypto import Keyring
from roost.support.trigger_wire import StartSpec, TriggerSpec

__all__ = ["SourceRow", "sources", "spec_of", "specs", "start_spec"]

# Whether a row is still ours is a column here, not a condition: the planner would take so narrow a
# condition for one row and compare every row of ours with every id asked for.
_SPECS = Sql(
    "SELECT t.id AS trigger_id, t.epoch, t.classpath, t.source, t.kwargs, t.code_hash, t.fileloc, "
    "run.dag_id, run.run_id, ti.task_id, ti.map_index, ti.try_number, t.job_id, t.fired_at, "
    f"t.strikes, t.trouble, t.start, {watchers.NAME} AS watcher "
    "FROM {rows:r | id bigint} JOIN trigger t ON t.id = r.id "
    "LEFT JOIN task_instance ti ON ti.id = t.ti_id LEFT JOIN dag_run run ON run.id = t.dag_run_id"
)
# What templates see of the run and its task (D12): asked for those only that have some.
_STARTS = Sql(
    "SELECT t.id, t.dispatch_id, t.code_hash, t.fileloc, t.queue, ti.try_number, "
    f"COALESCE(ti.start_date, t.created_at) AS start_date, {TASK_COLUMNS} "
    "FROM {rows:r | id bigint} JOIN trigger t ON t.id = r.id "
    "JOIN task_instance ti ON ti.id = t.ti_id JOIN dag_run run ON run.id = t.dag_run_id"
)
_SOURCES = Sql(
    "SELECT s.code_hash, s.fileloc, s.source, s.triggers, c.files "
    "FROM {rows:r | code_hash text} JOIN dag_source s ON s.code_hash = r.code_hash "
    "LEFT JOIN trigger_code c ON c.code_hash = s.code_hash"
)
_START = msgspec.json.Decoder(StartSpec)
_HELPERS = msgspec.json.Decoder(dict[str, tuple[str, str]])


class SourceRow(NamedTuple):
    """One version of a DAG file, the trigger classes a parser found in it, and its helpers."""

    code_hash: str
    fileloc: str
    source: str
    triggers: list[str]
    helpers: dict[str, tuple[str, str]]


def specs(
    tx: Tx, job_id: int, trigger_ids: Iterable[int], keys: Keyring | None = None
) -> list[TriggerSpec]:
    """What a runner needs to run these triggers, in their order; those not owned any more are left
    out.

    What ``keys`` do not decrypt has its ``error`` set (D22); None: nothing is encrypted.
    """
    places = {trigger_id: place for place, trigger_id in enumerate(trigger_ids)}
    found = tx.all(_SPECS, rows=tx.rows([{"id": trigger_id} for trigger_id in places]))
    ours = [row for row in found if row.job_id == job_id and row.fired_at is None]
    ours.sort(key=lambda row: places[row.trigger_id])  # a join keeps no order
    starts = _starts(tx, {row.trigger_id: row.start for row in ours if row.start is not None})
    return [_spec(row, starts.get(row.trigger_id), keys) for row in ours]


def _starts(tx: Tx, texts: dict[int, str]) -> dict[int, StartSpec]:
    """What these triggers are to be made of, with their tasks."""
    if not texts:
        return {}
    found = tx.all(_STARTS, rows=tx.rows([{"id": trigger_id} for trigger_id in texts]))
    return {row.id: start_spec(row, texts[row.id]) for row in found}


def start_spec(row: Row, text: str) -> StartSpec:
    """What a trigger is to be made of: ``text`` of its row, and the run and task beside it."""
    try:
        start = _START.decode(text)
    except msgspec.DecodeError:  # it fails its own task, in the runner
        start = StartSpec(msgspec.Raw(b"null"), "", 1)
    start.task = task_spec(
        row,
        dispatch_id=row.dispatch_id,
        max_tries=start.max_tries,
        operator=start.operator,
        code_hash=row.code_hash,
        fileloc=row.fileloc,
        start_date=row.start_date,
    )
    return start


def _spec(row: Row, start: StartSpec | None, keys: Keyring | None) -> TriggerSpec:
    spec = spec_of(row.trigger_id, row, start, keys)
    spec.strikes, spec.trouble, spec.watcher = row.strikes, row.trouble, row.watcher or ""
    return spec


def spec_of(
    trigger_id: int, row: Row, start: StartSpec | None, keys: Keyring | None
) -> TriggerSpec:
    """What a runner needs to make a trigger, of its row or of what its kill has kept of it.

    Where its arguments cannot be decrypted, it has none and an ``error`` (D22).
    """
    kwargs, error = row.kwargs, None
    if keys is not None:
        try:
            kwargs = keys.unseal(row.kwargs, f"the arguments of trigger {trigger_id}")
        except DecryptionError as problem:
            kwargs, error = "{}", str(problem)
    return TriggerSpec(
        trigger_id=trigger_id,
        epoch=row.epoch,
        classpath=row.classpath,
        source=row.source,
        kwargs=msgspec.Raw(kwargs.encode()),
        code_hash=row.code_hash,
        fileloc=row.fileloc,
        dag_id=row.dag_id or "",
        run_id=row.run_id or "",
        task_id=row.task_id or "",
        map_index=-1 if row.map_index is None else row.map_index,
        try_number=row.try_number or 0,
        start=start,
        error=error,
    )


def sources(tx: Tx, code_hashes: Iterable[str]) -> list[SourceRow]:
    """The stored DAG file versions with these hashes."""
    rows = tx.rows([{"code_hash": code_hash} for code_hash in code_hashes])
    return [
        SourceRow(
            row.code_hash,
            row.fileloc,
            row.source,
            msgspec.json.decode(row.triggers),
            {} if row.files is None else _HELPERS.decode(row.files),
        )
        for row in tx.all(_SOURCES, rows=rows)
    ]
