"""What a triggerer tells its runner of a trigger, and what the runner tells of it.

Frames and values are those of :mod:`roost.support.wire`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from roost.support.wire import DeferSpec, TaskSpec, XComWrite

__all__ = [
    "EndKind",
    "StartSpec",
    "TriggerReport",
    "TriggerSpec",
]

EndKind = Literal["end_success", "end_failed", "end_skipped"]


class StartSpec(msgspec.Struct, omit_defaults=True):
    """What a trigger is made of that its task starts in (D12): kept with its row as it stands in
    the DAG file.

    Attributes:
        kwargs: its arguments, typed JSON; texts in them are templates.
        operator: the class of the task.
        max_tries: as in :class:`TaskSpec`.
        task: what templates see of the run; added for the runner, not kept.
    """

    kwargs: msgspec.Raw
    operator: str
    max_tries: int
    task: TaskSpec | None = None


class TriggerSpec(msgspec.Struct, omit_defaults=True):
    """One trigger to run, as the triggerer hands it to its runner child.

    Attributes:
        strikes: how often it has ended or blocked its runner; ``trouble`` tells the last time.
        start: set where its arguments are still to be rendered (D12).
        watcher: whose it is, in words; empty: it is a task's (D13).
    """

    trigger_id: int
    epoch: int
    classpath: str
    source: str
    kwargs: msgspec.Raw
    code_hash: str
    fileloc: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    strikes: int = 0
    trouble: str | None = None
    start: StartSpec | None = None
    error: str | None = None  # why it cannot be run
    watcher: str = ""

    @property
    def size(self) -> int:
        """Its values, in bytes."""
        size = len(bytes(self.kwargs))
        if self.start is not None:
            size += len(bytes(self.start.kwargs))
            size += 0 if self.start.task is None else len(bytes(self.start.task.conf))
        return size


class TriggerReport(msgspec.Struct, omit_defaults=True):
    """What became of a trigger: it fired with a payload, it failed, or it ended its task (D11).

    Attributes:
        error: why it failed; of an end, its reason.
        xcoms: what an end pushes for the task.
        waits: it is to be told when this is in the database.
        row: of kind ``row``: it waits as a row from now on, which this describes (D12).
    """

    trigger_id: int
    epoch: int
    kind: Literal["fired", "failed", "row"] | EndKind
    payload: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    waits: bool = False
    xcoms: list[XComWrite] = []
    row: DeferSpec | None = None

    @property
    def size(self) -> int:
        """Its values, in bytes or characters."""
        values = sum(len(bytes(one.value)) for one in self.xcoms)
        return len(bytes(self.payload)) + len(self.error or "") + values
