"""DAG files whose tasks write down what they do, and what those notes prove."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["Body", "bodies", "dag_source", "most_at_once", "overlapping"]

_SOURCE = """\
import os
import time
from datetime import timedelta

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import FileTrigger, TimeDeltaTrigger


def note(context, phase, what):
    words = (context["ti"].task_id, phase, what, context["dispatch_id"], time.monotonic_ns())
    line = " ".join(map(str, words)) + "\\n"
    witness = os.open({witness!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(witness, line.encode())
    os.close(witness)


class Plain(BaseOperator):
    def execute(self, context):
        note(context, "plain", "begin")
        time.sleep({body_s})
        note(context, "plain", "end")


class Waiting(BaseOperator):
    def execute(self, context):
        note(context, "execute", "begin")
        time.sleep({body_s})
        note(context, "execute", "end")
        self.defer(trigger={trigger}, method_name="resume")

    def resume(self, context, event=None):
        note(context, "resume", "begin")
        time.sleep({body_s})
        note(context, "resume", "end")


with DAG("witnessed", schedule=None, max_active_tasks=1000):
    for number in range({plain}):
        Plain(task_id=f"plain{{number}}")
    for number in range({waiting}):
        Waiting(task_id=f"waiting{{number}}")
"""


def dag_source(
    witness: Path, *, plain: int, waiting: int, wait: float | Path, body_s: float = 0.0
) -> str:
    """A DAG ``witnessed`` of tasks that write a line when a body begins and when it ends.

    Args:
        witness: the file they write to.
        plain: how many tasks just run.
        waiting: how many defer.
        wait: what those wait for: seconds (in the timer lane) or a file (in the poll lane).
        body_s: how long each body takes.
    """
    trigger = f"TimeDeltaTrigger(timedelta(seconds={wait}))"
    if isinstance(wait, Path):
        trigger = f"FileTrigger({str(wait)!r}, poke_interval=0.5)"
    return _SOURCE.format(
        witness=str(witness), plain=plain, waiting=waiting, body_s=body_s, trigger=trigger
    )


class Body(NamedTuple):
    """One run of one method of one task; ``ended`` is None if it was killed. Nanoseconds."""

    task_id: str
    phase: str
    dispatch_id: int
    began: int
    ended: int | None


def bodies(witness: Path) -> list[Body]:
    """Every body that ran, in order of its beginning."""
    found: list[Body] = []
    lines = [line.split() for line in witness.read_text().splitlines()]
    for index, (task_id, phase, what, dispatch_id, at) in enumerate(lines):
        if what == "begin":
            ends = (
                int(later[4])
                for later in lines[index:]
                if later[:4] == [task_id, phase, "end", dispatch_id]
            )
            found.append(Body(task_id, phase, int(dispatch_id), int(at), next(ends, None)))
    return sorted(found, key=lambda body: body.began)


def overlapping(found: list[Body]) -> list[tuple[Body, Body]]:
    """Pairs of bodies of one task where the second began before the first had ended.

    A body without an end was killed; the next body of the task is then no proof of an overlap.
    """
    last: dict[str, Body] = {}
    pairs = []
    for body in found:
        before = last.get(body.task_id)
        if before is not None and before.ended is not None and before.ended > body.began:
            pairs.append((before, body))
        last[body.task_id] = body
    return pairs


def most_at_once(moves: list[tuple[int, str]], states: set[str]) -> int:
    """The most task instances in ``states`` at the same time, by the log of all their moves.

    Args:
        moves: ``(task instance, to_state)`` in the order they were committed.
        states: the states that count.
    """
    inside: set[int] = set()
    most = 0
    for instance, state in moves:
        (inside.add if state in states else inside.discard)(instance)
        most = max(most, len(inside))
    return most
