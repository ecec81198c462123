"""The verdict: what must hold of the evidence, whatever was killed (invariants S1-S6).

Each rule yields a line for each violation, with the rows that prove it. The rules of the metadata
alone are those of :mod:`tests.support.checker`; here the log is held against the witness, the
audit and the scripts of the tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tests.chaos import scripts
from tests.chaos.evidence import BY_USER, Evidence, Key
from tests.chaos.judge_streams import streams
from tests.chaos.judge_tide import tide
from tests.chaos.judge_users import edits, kills, marked
from tests.chaos.judge_waits import TIMED_OUT, deferral, keys, queues, starts, timeouts
from tests.chaos.nemesis import Blow

__all__ = ["leases", "verdict"]

_GRACE_S = 2.0
_KINDS = {
    "fired": {"resume"},
    "failed": {"fail", "retry"},
    "end_success": {"succeed"},
    "end_failed": {"fail", "retry"},
    "end_skipped": {"end_skipped"},
}


def verdict(found: Evidence) -> list[str]:
    """Every violation, one line each; empty when all is well."""
    return [line for rule in _RULES for line in rule(found)]


def leases(found: Evidence, blows: Sequence[Blow], doomed: Mapping[int, float]) -> Iterator[str]:
    """S15: nobody is declared dead who lives: not while its lease holds, not after an outage.

    Args:
        blows: who was stopped, and when.
        doomed: who was killed or asked to end, by pid, and when.
    """
    pids = {row.job_id: row.epoch for row in found.audit if row.what == "joined"}
    for row in found.audit:
        if row.what != "left" or doomed.get(pids[row.job_id], row.at) * 1e6 <= row.at:
            continue
        stops = [one for one in blows if one.kind in ("stop", "freeze")]
        stood = any(
            one.pid == pids[row.job_id]
            and one.at * 1e6 <= row.at <= (one.at + one.seconds + _GRACE_S) * 1e6
            for one in stops
        )
        if row.owner_ok or not stood:
            yield f"S15: a living {row.lane} was declared dead: {row}"


def _bodies(found: Evidence) -> Iterator[str]:
    """S1, S3: a body is that of a dispatch, begins where this one was to begin, and runs once."""
    for dispatch, bodies in found.bodies.items():
        entry = found.entries.get(dispatch)
        begin = bodies[0].begin
        if len(bodies) > 1:
            yield f"S1: dispatch {dispatch} began {len(bodies)} times: {[b.begin for b in bodies]}"
        if entry is None:
            yield f"S1: dispatch {dispatch} ran and was never started by the log: {begin}"
            continue
        if (tuple(begin["ti"]), begin["try"]) != (entry.ti, entry.try_number):
            yield f"S2: dispatch {dispatch} of {entry} ran as {begin}"
        if begin.get("came") != entry.came:
            yield f"S3: dispatch {dispatch} goes on from {entry.came} by the log, it ran {begin}"
        if begin.get("stale"):
            yield f"S3: dispatch {dispatch} was given an event of something else: {begin}"
        if begin.get("early"):
            yield f"N1: dispatch {dispatch} went on before its moment: {begin}"


def _lives(found: Evidence) -> Iterator[str]:
    """S1: never two live bodies of one task instance."""
    for line in found.witness:
        if line["w"] == "double":
            yield f"S1: two live copies: {line}"
    by_task: dict[Key, list[Any]] = defaultdict(list)
    for bodies in found.bodies.values():
        for body in bodies:
            by_task[tuple(body.begin["ti"])].append(body)
    for key, bodies in by_task.items():
        bodies.sort(key=lambda body: int(body.begin["t"]))
        for one, two in pairwise(bodies):
            if one.end is not None and one.end["t"] > two.begin["t"]:
                yield f"S1: bodies of {key} overlap: {one} and {two}"


def _entries(found: Evidence) -> Iterator[str]:
    """How a dispatch ended is what its body says, and no try is lost to what was killed (S11)."""
    says = {"succeed": "return", "defer": "defer", "fail": "raise", "retry": "raise"}
    for dispatch, entry in found.entries.items():
        if entry.ti[2] == "total" or entry.ended == "lose" or entry.ended in BY_USER:
            continue
        bodies = found.bodies_of(dispatch)
        end = bodies[-1].end if bodies else None
        if entry.ended is None:
            yield f"L5: dispatch {dispatch} has not ended: {entry}"
        elif end is None or end["how"] != says.get(entry.ended):
            yield f"S11: dispatch {dispatch} ended {entry}, its body says {end}"


def _triggers(found: Evidence) -> Iterator[str]:
    """S3: a trigger is left exactly once, and what goes on after it ends at most once."""
    for trigger, rows in found.left.items():
        if len(rows) != 1:
            how = [(row.event, row.at, row.actor, row.reason) for row in rows]
            yield f"S3: trigger {trigger} (dispatch {found.maker(trigger)}) was left {how}"
        if rows and found.maker(trigger) is None:
            yield f"S3: trigger {trigger} was left and nobody deferred with it: {rows}"
        for row in rows:
            starts = found.resumed.get(trigger, [])
            kept = [d for d in starts if found.entries[d].ended != "lose"]
            number = int(row.event == "resume")
            allowed = {0, number} if trigger in found.dropped else {number}
            if len(kept) not in allowed:
                yield f"S3: trigger {trigger} was left by {row.event} and began {kept} of {starts}"


def _claims(found: Evidence) -> Iterator[str]:
    """Epochs never fall, and no trigger changes hands without a new one (S15)."""
    last: dict[int, Any] = {}
    for row in found.audit:
        if row.what not in ("made", "changed", "gone"):
            continue
        before = last.get(row.trigger_id)
        last[row.trigger_id] = row
        if before is None:
            continue
        if row.epoch < before.epoch:
            yield f"epoch: trigger {row.trigger_id} fell from {before} to {row}"
        taken = row.job_id is not None and row.job_id != before.job_id
        if taken and row.epoch <= before.epoch:
            yield f"epoch: trigger {row.trigger_id} changed hands: {before}, {row}"
        if taken and before.fired:
            yield f"S3: trigger {row.trigger_id} was claimed after it had fired: {before}, {row}"


def _events(found: Evidence) -> Iterator[str]:
    """Every event is of the claim in force, the only one, and applied as what it is."""
    events: dict[int, list[Any]] = defaultdict(list)
    for row in found.audit:
        if row.what == "event":
            events[row.trigger_id].append(row)
            if row.lane == "poll" and (row.job_id is None or not row.owner_ok):
                yield f"S15: an event of a triggerer that had no lease: {row}"
            if row.epoch != row.fired:
                yield f"S15: an event of another claim than that in force: {row}"
    for trigger, rows in events.items():
        if len(rows) > 1:
            yield f"S3: trigger {trigger} has {len(rows)} events: {rows}"
    yield from _applied(found, events)


def _applied(found: Evidence, events: dict[int, list[Any]]) -> Iterator[str]:
    for trigger, rows in found.left.items():
        kinds = [event.kind for event in events.get(trigger, [])]
        for row in rows:
            late = (row.reason or "").startswith(TIMED_OUT)
            if (late and not kinds) or row.event in BY_USER:
                continue
            if not kinds:
                yield f"S3: trigger {trigger} was left by {row.event} without an event: {row}"
            elif not late and row.event not in _KINDS[kinds[0]]:
                rule = "D11" if kinds[0].startswith("end_") else "S3"
                yield f"{rule}: event {kinds} of trigger {trigger} was taken as {row.event}: {row}"


def _endings(found: Evidence) -> Iterator[str]:
    """L5: every run has ended, every task as its script says."""
    for run, state in found.runs.items():
        if state not in ("success", "failed"):
            yield f"L5: run {run} is {state}"
    by_users = marked(found)
    for key, state in found.states.items():
        if key in by_users:
            allowed = {by_users[key]}
        elif key[2] == "total":
            allowed = {"success"}
        else:
            allowed = scripts.outcomes(scripts.SCRIPTS[key[0]][key[2]])
        if state not in allowed:
            yield f"L5: {key} is {state}, its script allows {sorted(allowed)}"
    for trigger, rows in found.left.items():
        yield from _failure(found, trigger, rows)


def _steps(found: Evidence) -> Iterator[str]:
    """S3: nobody returns before all steps of the script, and what they return is not mixed up."""
    for bodies in found.bodies.values():
        begin, end = bodies[-1].begin, bodies[-1].end
        script = scripts.SCRIPTS[begin["ti"][0]][begin["ti"][2]]
        steps = script[min(begin["try"], len(script)) - 1]
        if end is not None and end["how"] == "return" and end["hop"] != len(steps):
            yield f"L5: {begin['ti']} returned after {end['hop']} of {steps}: {end}"
    yield from _totals(found)


def _totals(found: Evidence) -> Iterator[str]:
    """S16: what the instances of a mapped task have left, and all of it, is read below them.

    Who is cleared just after it has ended leaves nothing to a task that is about to read it.
    """
    share = len(scripts.SCRIPTS["mapped"]["each"][0])
    for run, total in found.totals.items():
        forgotten = {k for k, row in found.edits if k[:2] == run and row.from_state == "success"}
        allowed = [(scripts.MAPPED - n) * share for n in range(len(forgotten) + 1)]
        if int(total) not in allowed:
            yield f"S16: the instances of a mapped task of {run} came to {total}, not {allowed}"


def _failure(found: Evidence, trigger: int, rows: list[Any]) -> Iterator[str]:
    """A wait fails only where its script has it fail."""
    end = deferral(found, trigger)
    if end is None:
        return
    what, _, how = str(end["step"]).partition(":")
    timely = scripts.timeout_of(end["step"]) is not None
    fails = timely or what in scripts.FAILING or (what == "end" and how == "failed")
    for row in rows:
        if row.event in ("fail", "retry") and not fails:
            yield f"S11: {end} failed: {row}"


_RULES = (
    *(_bodies, _lives, _entries, _triggers, _claims, _events, _endings, _steps),
    *(edits, kills, tide, streams),
    *(queues, keys, timeouts, starts),
)
