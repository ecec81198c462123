"""Guards that a mutant has lost. The kill test must find out each of them, else it proves nothing.

Applied in the daemons by ``inject/sitecustomize.py``, and only there.
"""

from __future__ import annotations

from typing import Any

from tests.chaos import mutants_waits
from tests.chaos.mutating import Mutant, cut, queries

__all__ = ["MUTANTS", "apply"]


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
    events = queries("trigger_events")
    guard = "job_id = :job_id AND epoch = told_epoch AND fired_at IS NULL"
    cut(events, "_STORE", guard, ":job_id > 0 AND fired_at IS NULL")
    cut(events, "_STORE", "SELECT id, epoch, kind", "SELECT id, told_epoch, kind")
    events.jobs = _NoLeases(events.jobs)


def _same_epoch() -> None:
    """A claim does not raise the epoch."""
    kept = "epoch = CASE WHEN epoch = 0 THEN 1 ELSE epoch END"
    for name in ("_CLAIM_FREE", "_CLAIM_FREE_QUEUES"):
        cut(queries("triggers"), name, "epoch = epoch + 1", kept)


def _second_event() -> None:
    """A trigger takes any number of events: the index is gone, and so is the clause."""
    events = queries("trigger_events")
    for module, name in ((events, "_STORE"), (queries("timers"), "_FIRE_POSTGRES")):
        cut(module, name, "ON CONFLICT (trigger_id) DO NOTHING ")
    cut(queries("external"), "_FIRE", " ON CONFLICT (trigger_id) DO NOTHING")
    store = events.store

    def twice(tx: Any, job_id: int, reports: Any, now: int, *more: Any, **others: Any) -> Any:
        """As a report that is sent again because the answer to its commit was lost."""
        return store(tx, job_id, [*reports, *reports], now, *more, **others)

    events.store = twice


def _lost_event() -> None:
    """Some events are marked as stored, and are not."""
    events = queries("trigger_events")
    cut(events, "_STORE", "AND fired_at IS NULL ", "AND fired_at IS NULL AND id % 7 <> 3 ")
    store = events.store

    def lossy(tx: Any, job_id: int, reports: Any, now: int, *more: Any, **others: Any) -> list[int]:
        lost = [one.trigger_id for one in reports if one.trigger_id % 7 == 3]
        stored = store(tx, job_id, reports, now, *more, **others)
        if lost:
            tx.run(events._MARK, now=now, rows=tx.rows([{"id": one} for one in lost]))
        return [*stored, *lost]

    events.store = lossy


def _early_timer() -> None:
    """Timers fire two seconds before their moment."""
    for name in ("_FIRE_POSTGRES", "_FIRE_SQLITE", "_MARK_SQLITE"):
        cut(queries("timers"), name, "due_at <= :now", "due_at - 2000000 <= :now")


def _foreign_event() -> None:
    """An event is given to another waiter of the same triggerer."""
    events = queries("trigger_events")
    store = events.store
    kept: list[Any] = []

    def crossed(tx: Any, job_id: int, reports: Any, now: int, *more: Any, **others: Any) -> Any:
        for one in reports:
            if one.kind == "fired":
                kept.append(one.payload)
                one.payload = kept[-2] if len(kept) > 1 else one.payload
        return store(tx, job_id, reports, now, *more, **others)

    events.store = crossed


def _kept_trigger() -> None:
    """Some triggers stay when they have done their part."""
    inbox = queries("inbox")
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
    jobs = queries("jobs")
    for name in ("_LIVE", "_SURVEY"):
        cut(jobs, name, "lease_until < {now} AS lapsed", "1 = 1 AS lapsed")


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


def _resumed_edit() -> None:
    """What a user cleared goes on as it would have after the wait that he ended."""
    from roost.models.engine import Sql
    from roost.models.state_edits import CLEARED

    del CLEARED["next_method"], CLEARED["next_kwargs"]
    keep = Sql(
        "UPDATE task_instance AS t SET next_method = w.next_method, next_kwargs = w.next_kwargs "
        "FROM trigger w WHERE w.ti_id = t.id AND t.id IN (SELECT r.id FROM {rows:r | id bigint})"
    )
    from roost.scheduler.book import ActiveRun

    wait = ActiveRun.wait

    def keeping(run: Any, index: int, waiting: Any) -> None:
        columns = {
            k: v for k, v in waiting.columns.items() if k not in ("next_method", "next_kwargs")
        }
        fresh = tuple(map(str, waiting.path)) == ("schedule",)
        wait(run, index, waiting._replace(columns=columns) if fresh else waiting)

    setattr(ActiveRun, "wait", keeping)  # noqa: B010 - a mutant may
    kills = queries("kills")
    kill = kills.kill_triggers_of

    def kill_and_keep(tx: Any, ti_ids: Any) -> None:
        rows = tx.rows([{"id": ti_id} for ti_id in ti_ids])
        tx.run(keep, rows=rows)
        kill(tx, ti_ids)

    kills.kill_triggers_of = kill_and_keep


def _forgotten_kill() -> None:
    """A user's edit deletes what was awaited, and nobody is told to end it."""
    queries("kills").kill_triggers_of = queries("user_edits").delete_triggers_of


def _idle_kill() -> None:
    """A runner says that it has called on_kill(), and has not."""
    from roost.triggerer import killing

    vars(killing)["has_on_kill"] = lambda _cls: False


def _lost_wish() -> None:
    """Who edits what runs is told that it will be done."""
    queries("user_edits").wish_for = lambda *_args: None


def _crossed_pool() -> None:
    """A poll for many gives all of them the answer of the first."""
    from roost.triggerer import pooled

    answer: Any = vars(pooled)["answer_for"]

    def crossed(found: Any, key: str, cls: Any) -> Any:
        return answer(found, next(iter(found), key), cls)

    vars(pooled)["answer_for"] = crossed


def _lost_sighting() -> None:
    """Some of what a watcher sees counts as stored, and is not."""
    watchers = queries("watchers")
    store = watchers.store

    def lossy(tx: Any, job_id: int, seen: Any) -> Any:
        stored = store(tx, job_id, [one for one in seen if one.number % 4 != 3])
        return stored | {(one.trigger_id, one.number) for one in seen}

    watchers.store = lossy


def _second_sighting() -> None:
    """The key of what a watcher sees counts for nothing: brought again, it is stored again."""
    watchers = queries("watchers")
    store = watchers.store

    def twice(tx: Any, job_id: int, seen: Any) -> Any:
        keyless = [one._replace(key=None) for one in seen]
        again = [one._replace(number=one.number + 1_000_000) for one in keyless]
        store(tx, job_id, again)
        return store(tx, job_id, keyless)

    watchers.store = twice


MUTANTS: dict[str, Mutant] = {
    # It is seen when a triggerer wakes up after a take-over, which takes a lease.
    "stale-owner": Mutant(
        _stale_owner, "S15", frozenset({"stop"}), "triggerer", 60.0, (15.0, 17.0), waits=True
    ),
    "same-epoch": Mutant(_same_epoch, "epoch", frozenset({"kill"}), "triggerer", waits=True),
    "second-event": Mutant(_second_event, "S3"),
    "lost-event": Mutant(_lost_event, "L5"),
    "early-timer": Mutant(_early_timer, "N1"),
    "foreign-event": Mutant(_foreign_event, "S3"),
    "kept-trigger": Mutant(_kept_trigger, "S6"),
    "silent-move": Mutant(_silent_move, "S4"),
    "every-lease-lapsed": Mutant(_every_lease_lapsed, "S15"),
    "forgotten-loss": Mutant(_forgotten_loss, "S11", frozenset({"kill"}), "worker"),
    "resumed-edit": Mutant(_resumed_edit, "S3", waits=True),
    "forgotten-kill": Mutant(_forgotten_kill, "D10", waits=True),
    "idle-kill": Mutant(_idle_kill, "D10", waits=True),
    "lost-wish": Mutant(_lost_wish, "D10", waits=True),
    "crossed-pool": Mutant(_crossed_pool, "S3"),
    "lost-sighting": Mutant(_lost_sighting, "D13"),
    "second-sighting": Mutant(_second_sighting, "D13"),
    **mutants_waits.MUTANTS,
}


def apply(name: str) -> None:
    """Make this process a mutant."""
    MUTANTS[name].apply()
