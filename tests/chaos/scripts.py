"""What the tasks of the kill test do and what they may come to, and the witness of what they did.

Each task plays a *script*: a list of steps for each of its tries. What a task comes to follows from
its script alone (:func:`outcomes`), whatever is killed meanwhile. Every body and every trigger
writes to the witness, a file that no process holds open and that a crash cannot take back.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Script = list[list[str]]

# By DAG and task: the steps of each try. A step is WHAT:HOW; see Actor._wait and Beacon.run. A try
# after a user's clear goes on with the next of them, or with the last one again.
SCRIPTS: dict[str, dict[str, Script]] = {
    "hops": {
        "timer": [["timer:1"]],
        "two": [["poll:0.5", "timer:0.5"]],
        "ten": [["poll:0.2", "timer:0.2", "now", "poll:0.5", "now"] * 2],
        "long": [["poll:8"]],
        "longer": [["poll:15"]],
        "file": [["file:1", "poll:0.2"]],
        "busy": [["work:1.5", "poll:0.2", "work:1.5", "timer:0.2", "work:1"]],
    },
    "events": {
        "before": [["event:before"]],
        "during": [["event:during", "poll:0.3", "event:during"]],
        "after": [["event:after", "now", "event:after"]],
        "asked": [["event:asked", "event:asked"]],
    },
    "ends": {
        "late": [["timeout:2"], ["timer:0.2"]],
        "never": [["timeout:1"]],
        "broken": [["fail"], ["poll:0.2", "fail"], ["now"]],
        "raises": [["raise"], ["timer:0.2", "raise"], ["poll:0.2"]],
        "race": [["race:1"]],
        "well": [["end:success"]],
        "bad": [["end:failed"], ["poll:0.2", "end:failed"]],
        "left": [["poll:0.2", "end:skipped"]],
        "moment": [["endtimer:1"]],
    },
    "begun": {
        "by_trigger": [["start", "poll:0.2"]],
        "again": [["start", "raise"], ["start", "timer:0.2"]],
    },
    "mapped": {"each": [["poll:0.4", "timer:0.4"]]},
    "pooled": {
        "narrow": [["poll:0.5", "timer:0.5"]],
        "second": [["timer:0.5", "poll:0.5"]],
        "third": [["poll:1"]],
    },
    "seats": {
        "one": [["seat:0.5", "timer:0.2", "seat:0.2"]],
        "two": [["seat:2"]],
        "twin": [["twin:1"]],
        "other": [["twin:1"]],
        "broken": [["seatfail"], ["seat:0.2"]],
    },
    "held": {  # long enough for a user to come
        "poll": [["poll:12"], ["poll:0.3"]],
        "seat": [["seat:12"], ["seat:0.3"]],
        "timer": [["timer:12"], ["timer:0.3"]],
        "key": [["event:asked", "poll:6"], ["now"]],
    },
    "late": {  # time-outs and events at the same moment
        "key": [["await:during"], ["await:during"], ["now"]],
        "timer": [["timerrace:1"], ["timer:0.2"]],
        "poll": [["race:1", "race:1"], ["poll:0.2"]],
    },
    "sides": {  # in queues of one triggerer each, see queue_of()
        "left": [["poll:0.5", "timer:0.3", "poll:1"]],
        "right": [["poll:0.5", "timer:0.3", "poll:1"]],
        "left_seat": [["seat:1", "event:before", "seat:0.3"]],
        "right_begun": [["start", "poll:0.5"]],
    },
    "tide": {"catch": [["poll:0.2"]]},
    "surf": {"catch": [["poll:0.2"]]},
}
BEGUN = {"by_trigger", "again", "right_begun"}  # tasks that start in their triggers
QUEUES = {"a": ("default", "left"), "b": ("default", "right")}  # of the triggerers, by host
WATCHED = {"tide", "surf"}  # runs of these DAGs are made by what watchers see
WAITING = {"hops", "held"}  # DAGs with waits of many seconds
SEA = "chaos://sea"
SURFERS = (0, 1, 2)  # watchers that share a stream
MAPPED = 4
STARTED = -1  # in the place of the dispatch that deferred, where none did
POOLS = {"narrow": (2, 50)}  # slots and deferred_percent
FAILING = {"timeout", "fail", "raise", "seatfail"}
RACING = {"race", "await", "timerrace"}  # whether in time or not is for nobody to say
TIMEOUTS = {"await": 2.0}  # of a step that does not say it itself


def timeout_of(step: str) -> float | None:
    """After how many seconds a step is timed out, where it is."""
    what, _, how = step.partition(":")
    return float(how) if what in ("timeout", "race", "timerrace") else TIMEOUTS.get(what)


def queue_of(dag_id: str, task_id: str) -> str:
    """In which queue a task is, and so are its triggers."""
    return task_id.partition("_")[0] if dag_id == "sides" else "default"


def surfers_of(wave: str) -> list[int]:
    """Which of the watchers that share a stream make an event of a wave."""
    return [number for number in SURFERS if number != SURFERS[-1] or int(wave) % 2]


def outcomes(script: Script) -> set[str]:
    """The states that a task with this script may end in."""
    found: set[str] = set()
    for number, steps in enumerate(script):
        what, _, how = steps[-1].partition(":")
        if what in RACING:
            found.add("success")
        fails = what in FAILING | RACING or (what == "end" and how == "failed")
        if not fails:
            return found | {{"skipped": "skipped"}.get(how, "success")}
        if number == len(script) - 1:
            found.add("failed")
    return found


def folder() -> Path:
    """Where the kill test keeps what tasks and triggers write, and the files they wait for."""
    return Path(os.environ["ROOST_CHAOS"])


def note(what: str, **fields: Any) -> None:
    """One line in the witness, of a task, a trigger or a user."""
    testify(folder(), what, **fields)


def testify(place: Path, what: str, **fields: Any) -> None:
    """One line in the witness below a folder: one write to a file opened to append."""
    line = {"w": what, "t": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "pid": os.getpid()}
    line["at"] = time.time_ns() // 1000  # as the database tells time
    data = json.dumps(line | fields).encode() + b"\n"
    file = os.open(place / "witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)
