"""Why a trigger has not fired: the first thing in its way, with its numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from roost.cli.output import iso
from roost.dag.runwait import KEY as RUN_KEY
from roost.scheduler.line import Reason
from roost.triggerer.strikes import APART, STRIKES, longest_aside_s

__all__ = ["Triggerer", "awaited", "triggerer_of", "waits_for", "why_waiting"]


class Triggerer(NamedTuple):
    """One triggerer that lives.

    Attributes:
        capacity: None before its first renewal says so.
        queues: empty: every queue.
    """

    id: int
    hostname: str
    pid: int
    capacity: int | None
    running: int
    queues: frozenset[str]


class _Detail(msgspec.Struct):
    capacity: int | None = None
    running: int = 0
    queues: list[str] = []


def triggerer_of(job: Any, counts: Sequence[Any] = ()) -> Triggerer:
    """A triggerer.

    Args:
        job: a row of ``listing.live_jobs`` whose kind is ``triggerer``.
        counts: ``listing.trigger_counts``: what has been put aside takes room, and so does what it
            has taken since it last said how many it runs.
    """
    detail = msgspec.json.decode(job.detail or "{}", type=_Detail)
    held = max((row.running for row in counts if row.job_id == job.id), default=0)
    running = max(detail.running, held)
    return Triggerer(
        job.id, job.hostname, job.pid, detail.capacity, running, frozenset(detail.queues)
    )


def why_waiting(row: Any, triggerers: Sequence[Triggerer], schedulers: int, now: int) -> Reason:
    """Exactly one reason.

    Args:
        row: the trigger, as ``queries.why`` reads it.
        triggerers: those that live.
        schedulers: how many live.
        now: the wall clock in microseconds.
    """
    since = f"watching since {iso(row.created_at)} on trigger {row.id} ({row.classpath})"
    if row.watcher is None:
        since = f"deferred since {iso(row.created_at)} on trigger {row.id} ({row.classpath})"
    numbers: dict[str, object] = {
        "trigger_id": row.id, "lane": row.lane, "classpath": row.classpath,
        "since": iso(row.created_at), "due_at": iso(row.due_at),
        "times_out_at": iso(row.timeout_at),
    }  # fmt: skip
    if row.fired_at is not None:
        return _fired(since, numbers, row, schedulers)
    kind, tail, more = _tail(row, triggerers, now)
    limit = "" if row.timeout_at is None else f", times out at {iso(row.timeout_at)}"
    return Reason(kind, f"{since}: {tail}{limit}", numbers | more)


def _fired(since: str, numbers: dict[str, object], row: Any, schedulers: int) -> Reason:
    text = f"{since}, which fired at {iso(row.fired_at)}: "
    numbers = numbers | {"fired_at": iso(row.fired_at)}
    if not schedulers:
        tail = "its event is stored, but no scheduler is running; start `roost scheduler`"
        return Reason("no_scheduler", text + tail, numbers)
    return Reason("resuming", f"{text}it is about to resume", numbers)


_Tail = tuple[str, str, dict[str, object]]


def _tail(row: Any, triggerers: Sequence[Triggerer], now: int) -> _Tail:
    if row.lane == "external" and row.external_key.startswith(RUN_KEY):
        return "deferred", awaited(row.external_key), {"external_key": row.external_key}
    owner = next((one for one in triggerers if one.id == row.job_id), None)
    if not triggerers and (row.lane != "poll" or row.hostname is None):
        return "no_triggerer", "no triggerer is running, start `roost triggerer`", {}
    if row.lane == "timer":
        late = ", a triggerer is about to see it" if row.due_at <= now - 2_000_000 else ""
        return "deferred", f"due at {iso(row.due_at)}{late}", {}
    if row.lane == "external":
        there = "; one is there, a triggerer is about to take it" if row.heard else ""
        key = {"external_key": row.external_key}
        return "deferred", f"{awaited(row.external_key)}{there}", key
    if row.hostname is not None and owner is None:
        tail = f"its triggerer {row.hostname}:{row.pid} is gone, "
        if triggerers:
            return "taken_over", f"{tail}another is about to take it", {}
        return "no_triggerer", f"{tail}and no other is running: start `roost triggerer`", {}
    return _free(row, triggerers) if owner is None else _polled(row, owner)


def _polled(row: Any, owner: Triggerer) -> _Tail:
    tail = f"polled by triggerer {owner.hostname}:{owner.pid}"
    if not row.strikes:
        if row.watcher is not None and row.trouble:
            return "failing", f"{tail}, {row.trouble}", {"trouble": row.trouble}
        return "deferred", tail, {}
    numbers: dict[str, object] = {"strikes": row.strikes, "trouble": row.trouble}
    trouble = row.trouble or "it ended or blocked its runner"
    if row.watcher is not None and row.strikes >= STRIKES:
        longest = longest_aside_s(row.strikes)
        tail = (
            f"put aside after {row.strikes} strikes by triggerer {owner.hostname}:{owner.pid}, and "
            f"tried again in quarantine after {longest:.0f} s at most: {trouble}; mend "
            f"{row.classpath} in {row.fileloc}"
        )
        return "aside", tail, numbers | {"longest_aside_s": longest}
    place = f"{tail} in quarantine" if row.strikes >= APART else tail
    then = "it is put aside for a while" if row.watcher is not None else "its task fails"
    remedy = f"with strike {STRIKES} {then}; it must await instead of blocking, never exit"
    kind = "quarantine" if row.strikes >= APART else "struck"
    return kind, f"{place}, strike {row.strikes} of {STRIKES}: {trouble}; {remedy}", numbers


def _free(row: Any, triggerers: Sequence[Triggerer]) -> _Tail:
    takers = [one for one in triggerers if not one.queues or row.queue in one.queues]
    numbers: dict[str, object] = {"queue": row.queue, "triggerers": len(triggerers)}
    if not takers:
        others = ", ".join(sorted({queue for one in triggerers for queue in one.queues}))
        tail = (
            f"no triggerer takes queue {row.queue}: those that run take {others}; start "
            f"`roost triggerer --queues {row.queue}`"
        )
        return "no_triggerer_for_queue", tail, numbers
    room = [one for one in takers if one.capacity is None or one.running < one.capacity]
    if not room:
        running, most = sum(one.running for one in takers), sum(one.capacity or 0 for one in takers)
        tail = f"no triggerer has room for it: {running} of {most} run; start another, or raise "
        return "no_capacity", f"{tail}triggerer.capacity", numbers | {"capacity": most}
    return "deferred", "no triggerer has taken it yet", numbers


def awaited(key: str) -> str:
    """What a trigger of the external lane waits for."""
    if key.startswith(RUN_KEY):
        return f"waits for runs of DAG {key.removeprefix(RUN_KEY)}"
    return f"waits for the event {key!r}"


def waits_for(row: Any) -> str:
    """What a trigger waits for, in one sentence."""
    if row.lane == "timer":
        return f"until {iso(row.due_at)}, as a row"
    if row.lane == "external":
        return f"{awaited(row.external_key)}, as a row"
    if row.watcher is not None:
        return f"for ever: it watches for {row.watcher!r} in a triggerer"
    return f"until {row.classpath} yields an event in a triggerer"
