"""Stores what a parse gave: versions, DAGs and their schedule, or the import error (S12).

A file with an error keeps its last good DAGs scheduled. A dag_id belongs to the file that defined
it first; another file that defines it too gets an import error that names both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from roost.dag.model import EdgeError, ParsedFile, SerializedDag, Upcoming
from roost.dag.registry import entry_point_sources
from roost.dag.timetable import following_run
from roost.dag.watcher import identity_of
from roost.models.engine import Tx
from roost.models.queries import assets, dags, watchers
from roost.models.queries.dags import DagRow
from roost.scheduler.plan import Plan
from roost.support.clock import now_us
from roost.support.storable import storable

__all__ = ["forget_file", "store_file"]

_BUILT_IN = "roost.triggers."


def store_file(
    tx: Tx,
    fileloc: str,
    parsed: ParsedFile,
    *,
    stamp: str,
    took_us: int,
    paused: bool,
    clock: Callable[[], int] = now_us,
) -> str | None:
    """Store the result of one parse in the caller's transaction.

    Args:
        tx: the transaction.
        fileloc: the file, relative to the DAGs folder.
        parsed: what the parser said.
        stamp: what the file looked like, to tell a later change.
        took_us: how long the parse took.
        paused: whether a DAG seen for the first time starts out paused.
        clock: tells from when on runs are due.

    Returns:
        The import error, or None.
    """
    error = parsed.error
    if error is None:
        error = _store_dags(tx, fileloc, parsed, paused, clock())
    dags.record_file(
        tx,
        fileloc,
        code_hash=parsed.code_hash,
        stamp=stamp,
        error=error and storable(error),
        warnings=msgspec.json.encode(parsed.warnings).decode(),
        parse_us=took_us,
    )
    return error


def forget_file(tx: Tx, fileloc: str) -> None:
    """A file is gone: its DAGs are not scheduled any more."""
    dags.delete_file(tx, fileloc)
    _deactivate(tx, [d.dag_id for d in dags.active_dags(tx).values() if d.fileloc == fileloc])


def _store_dags(tx: Tx, fileloc: str, parsed: ParsedFile, paused: bool, now: int) -> str | None:
    active = dags.active_dags(tx)
    triggers = msgspec.json.encode(parsed.triggers).decode()
    dags.save_source(tx, parsed.code_hash, fileloc, parsed.source, triggers)
    if parsed.texts and parsed.triggers:
        dags.save_helpers(tx, parsed.code_hash, msgspec.json.encode(parsed.texts).decode())
    errors, stored = [], []
    for dag in parsed.dags:
        owner = active.get(dag.dag_id)
        if owner is not None and owner.fileloc != fileloc:
            errors.append(
                f"DAG {dag.dag_id!r} is defined in {owner.fileloc} and in {fileloc}; "
                f"{owner.fileloc} keeps it: rename one of them"
            )
        elif broken := _broken(dag):
            errors.append(broken)
        elif _store_dag(tx, fileloc, dag, parsed, owner, paused, now):
            stored.append(dag)
    # Last, as turns lock these rows after those of dag_usage: nobody waits in a circle.
    for dag in sorted(stored, key=lambda dag: dag.dag_id):
        limits = {task.task_id: task.max_active_tis_per_dag for task in dag.tasks}
        dags.save_task_limits(
            tx, dag.dag_id, {task_id: n for task_id, n in limits.items() if n is not None}
        )
    defined = {dag.dag_id for dag in parsed.dags}
    gone = [d.dag_id for d in active.values() if d.fileloc == fileloc and d.dag_id not in defined]
    _deactivate(tx, gone)
    if stored and not gone:
        watchers.sync(tx)
    return "\n".join(errors) or None


def _broken(dag: SerializedDag) -> str | None:
    """Why a scheduler could not decide a DAG: what it reads later must not be able to stop it."""
    try:
        Plan.compile(dag)
    except EdgeError as error:
        return f"DAG {dag.dag_id!r} does not hold together: {error}"
    return None


def _deactivate(tx: Tx, dag_ids: list[str]) -> None:
    dags.deactivate_dags(tx, dag_ids)
    if dag_ids:
        watchers.sync(tx)
        dags.forget_stamps(tx)  # a file that was refused for a duplicate id may have it now


def _store_dag(
    tx: Tx,
    fileloc: str,
    dag: SerializedDag,
    parsed: ParsedFile,
    owner: DagRow | None,
    paused: bool,
    now: int,
) -> bool:
    data = msgspec.json.encode(dag)
    hash_ = hashlib.sha256(data + parsed.code_hash.encode()).hexdigest()
    upcoming = parsed.upcoming.get(dag.dag_id)
    if owner is not None and owner.hash == hash_:
        if upcoming is not None:  # a timetable of the user's own was asked anew
            dags.replan(tx, dag.dag_id, **_schedule(tx, dag, upcoming, now))
        return False
    version_id = dags.save_version(
        tx,
        dag_id=dag.dag_id,
        hash_=hash_,
        code_hash=parsed.code_hash,
        fileloc=fileloc,
        data=data.decode(),
    )
    _store_watchers(tx, fileloc, dag, parsed)
    starts_paused = dag.is_paused_upon_creation
    assets.set_listener(tx, dag.dag_id, sorted(dag.assets.uris()) if dag.assets else [])
    dags.save_dag(
        tx,
        max_runs=dag.max_active_runs,
        dag_id=dag.dag_id,
        fileloc=fileloc,
        version_id=version_id,
        is_paused=paused if starts_paused is None else starts_paused,
        schedule=dag.timetable.summary,
        owners=msgspec.json.encode(dag.owners).decode(),
        tags=msgspec.json.encode(dag.tags).decode(),
        description=storable(dag.description),
        **_schedule(tx, dag, upcoming, now),
    )
    return True


def _store_watchers(tx: Tx, fileloc: str, dag: SerializedDag, parsed: ParsedFile) -> None:
    """What it asks to be watched (D13). Code of this file is that of this version."""
    own = set()
    if dag.watchers:
        ours = entry_point_sources()
        own = {one for one in parsed.triggers if one not in ours and not one.startswith(_BUILT_IN)}
    asked = [
        watchers.WatcherRow(
            uri=one.uri,
            name=one.name,
            hash=identity_of(one, parsed.code_hash, own),
            classpath=one.classpath,
            source=one.source,
            kwargs=msgspec.json.encode(one.kwargs).decode(),
            queue=one.queue,
        )
        for one in dag.watchers
    ]
    watchers.set_watchers(tx, dag.dag_id, asked, code_hash=parsed.code_hash, fileloc=fileloc)


def _schedule(tx: Tx, dag: SerializedDag, upcoming: Upcoming | None, now: int) -> dict[str, Any]:
    """What the DAG's row holds of its schedule."""
    last = dags.last_interval(tx, dag.dag_id, listed=upcoming is not None)
    info = following_run(dag, upcoming, last, now)
    return {
        "upcoming": "[]" if upcoming is None else msgspec.json.encode(upcoming).decode(),
        "next_run_after": info.run_after if info else None,
        "next_interval_start": info.interval_start if info else None,
        "next_interval_end": info.interval_end if info else None,
    }
