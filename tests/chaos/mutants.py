"""Guards that a mutant has lost. The kill test must find out each of them, else it proves nothing.

Applied in the daemons by ``inject/sitecustomize.py``, and only there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["MUTANTS", "apply"]


def _cut(module: Any, name: str, old: str, new: str = "") -> None:
    """Change a named statement; the text must be there."""
    from roost.models.engine import Sql

    source = getattr(module, name).source
    if old not in source:
        raise ValueError(f"{name} does not hold {old!r}")
    setattr(module, name, Sql(source.replace(old, new)))


def _queries(name: str) -> Any:
    import importlib

    return importlib.import_module(f"roost.models.queries.{name}")


class _NoLeases:
    """The queries of leases, but everybody owns one for ever."""

    def __init__(self, jobs: Any) -> None:
        self._jobs = jobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jobs, name)

    def owns_lease(self, _tx: Any, _job_id: int) -> bool:
        return True


def _stale_owner() -> None:
    """An event is taken from whoever sends it: no lease, no owner, no epoch."""
    triggers = _queries("triggers")
    guard = "job_id = :job_id AND epoch = told_epoch AND fired_at IS NULL"
    _cut(triggers, "_STORE", guard, ":job_id > 0 AND fired_at IS NULL")
    _cut(triggers, "_STORE", "SELECT id, epoch, kind", "SELECT id, told_epoch, kind")
    triggers.jobs = _NoLeases(triggers.jobs)


def _same_epoch() -> None:
    """A claim does not raise the epoch."""
    kept = "epoch = CASE WHEN epoch = 0 THEN 1 ELSE epoch END"
    for name in ("_CLAIM_FREE", "_CLAIM_FREE_QUEUES"):
        _cut(_queries("triggers"), name, "epoch = epoch + 1", kept)


def _second_event() -> None:
    """A trigger takes any number of events: the index is gone, and so is the clause."""
    triggers = _queries("triggers")
    for name in ("_STORE", "_FIRE_POSTGRES"):
        _cut(triggers, name, "ON CONFLICT (trigger_id) DO NOTHING ")
    _cut(_queries("external"), "_FIRE", " ON CONFLICT (trigger_id) DO NOTHING")
    store = triggers.store

    def twice(tx: Any, job_id: int, reports: Any, now: int) -> Any:
        """As a report that is sent again because the answer to its commit was lost."""
        return store(tx, job_id, [*reports, *reports], now)

    triggers.store = twice


def _lost_event() -> None:
    """Some events are marked as stored, and are not."""
    triggers = _queries("triggers")
    _cut(triggers, "_STORE", "AND fired_at IS NULL ", "AND fired_at IS NULL AND id % 7 <> 3 ")
    store = triggers.store

    def lossy(tx: Any, job_id: int, reports: Any, now: int) -> list[int]:
        lost = [one.trigger_id for one in reports if one.trigger_id % 7 == 3]
        stored = store(tx, job_id, reports, now)
        if lost:
            tx.run(triggers._MARK, now=now, rows=tx.rows([{"id": one} for one in lost]))
        return [*stored, *lost]

    triggers.store = lossy


def _early_timer() -> None:
    """Timers fire two seconds before their moment."""
    for name in ("_FIRE_POSTGRES", "_FIRE_SQLITE", "_MARK_SQLITE"):
        _cut(_queries("triggers"), name, "due_at <= :now", "due_at - 2000000 <= :now")


def _foreign_event() -> None:
    """An event is given to another waiter of the same triggerer."""
    triggers = _queries("triggers")
    store = triggers.store
    kept: list[Any] = []

    def crossed(tx: Any, job_id: int, reports: Any, now: int) -> Any:
        for one in reports:
            if one.kind == "fired":
                kept.append(one.payload)
                one.payload = kept[-2] if len(kept) > 1 else one.payload
        return store(tx, job_id, reports, now)

    triggers.store = crossed


def _kept_trigger() -> None:
    """Some triggers stay when they have done their part."""
    inbox = _queries("inbox")
    delete = inbox.delete_triggers

    def keep(tx: Any, ids: Any) -> None:
        delete(tx, [one for one in ids if one % 5])

    inbox.delete_triggers = keep


def _silent_move() -> None:
    """A move counts as two, one of which is not in the log."""
    from roost.models import transitions

    text: Any = transitions._update_text

    def twice(*args: Any) -> str:
        found: str = text(*args)
        return found.replace("version = t.version + 1,", "version = t.version + 2,")

    vars(transitions)["_update_text"] = twice


def _every_lease_lapsed() -> None:
    """Daemons take those of other hosts for dead, whatever their leases say."""
    jobs = _queries("jobs")
    for name in ("_LIVE", "_SURVEY"):
        _cut(jobs, name, "lease_until < {now} AS lapsed", "1 = 1 AS lapsed")


def _forgotten_loss() -> None:
    """A try is consumed where a worker was lost."""
    from roost.scheduler.steps import settle

    read: Any = settle._read_outcome

    def failed(turn: Any, dispatch: Any) -> Any:
        outcome = read(turn, dispatch)
        if outcome.kind == "lost":
            outcome.kind = "failed"
        return outcome

    vars(settle)["_read_outcome"] = failed


MUTANTS: dict[str, Callable[[], None]] = {
    "stale-owner": _stale_owner,
    "same-epoch": _same_epoch,
    "second-event": _second_event,
    "lost-event": _lost_event,
    "early-timer": _early_timer,
    "foreign-event": _foreign_event,
    "kept-trigger": _kept_trigger,
    "silent-move": _silent_move,
    "every-lease-lapsed": _every_lease_lapsed,
    "forgotten-loss": _forgotten_loss,
}


def apply(name: str) -> None:
    """Make this process a mutant."""
    MUTANTS[name]()
