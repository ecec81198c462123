"""Start tasks in their triggers: from scheduled to deferred, and no worker is taken (D12)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec

from roost.dag.model import SerializedStart, SerializedTask
from roost.models.queries import inbox
from roost.models.queries.inbox import NewTrigger
from roost.models.states import Event, State
from roost.scheduler.book import Alarm
from roost.scheduler.starters import Starter
from roost.scheduler.turn import Turn
from roost.support.trigger_wire import StartSpec

__all__ = ["start_in_triggers"]

_Group = tuple[tuple[Event, ...], tuple[str, ...]]
_encode = msgspec.json.Encoder().encode


def start_in_triggers(turn: Turn, room: dict[str, int], changes: dict[str, int]) -> None:
    """Write the triggers of those that may start, and move them, in one transaction.

    Limits of what is queued or runs do not concern them; a pool that counts deferred tasks must
    have room.

    Args:
        turn: the turn.
        room: free hundredths of slots by pool; what they take is taken off.
        changes: and added here, for the pools' rows.
    """
    memory = turn.memory
    patient_until = turn.now - memory.ready.ages.after_us
    going = memory.starters.take(memory.holding_pools, room, memory.ready.first, patient_until)
    if not going:
        return
    turn.reserve_ids(len(going))
    created = inbox.create_triggers(turn.tx, [_trigger_row(turn, one) for one in going])
    groups: dict[_Group, list[tuple[Starter, dict[str, Any]]]] = defaultdict(list)
    for one in going:
        ti_id = one.run.board.ti_ids[one.task]
        waiting = one.run.waiting.pop(one.task)
        if ti_id not in created:  # it has a trigger already: somebody else moved it
            turn.doubt(one.run)
            continue
        row: dict[str, Any] = {"id": ti_id, **waiting.columns}
        row |= {"trigger_id": created[ti_id], "start_date": turn.now}
        sets = tuple(name for name in row if name != "id")
        groups[(*waiting.path, Event.START_DEFERRED), sets].append((one, row))
    stray: list[int] = []
    for (path, sets), items in groups.items():
        moved = turn.move(path, [row for _, row in items], sets=sets)
        for one, row in items:
            if row["id"] in moved:
                _started(turn, one, created[row["id"]], changes)
            else:
                stray.append(created[row["id"]])
                turn.doubt(one.run)
    inbox.delete_triggers(turn.tx, stray)
    turn.deferred = True


def _started(turn: Turn, one: Starter, trigger_id: int, changes: dict[str, int]) -> None:
    run = one.run
    run.board.settle(one.task, State.DEFERRED)
    if one.need:
        run.holding[one.task] = turn.memory.holding_pools[one.pool]
        changes[one.pool] = changes.get(one.pool, 0) + one.need
    start = _start(run.board.tasks[one.task])
    if start.timeout_us is not None:
        due_at = turn.now + start.timeout_us
        ti_id = run.board.ti_ids[one.task]
        turn.book.alarm(Alarm(due_at, run.key, ti_id, trigger_id, start.on_timeout))


def _start(task: SerializedTask) -> SerializedStart:
    assert task.start is not None  # noqa: S101 - who has none does not stand here
    return task.start


def _trigger_row(turn: Turn, one: Starter) -> NewTrigger:
    run, task = one.run, one.run.board.tasks[one.task]
    start = _start(task)
    made_of = StartSpec(
        kwargs=msgspec.Raw(_encode(start.kwargs)),
        operator=task.operator,
        max_tries=run.first_tries.get(one.task, 0) + 1 + task.retries,
    )
    return NewTrigger(
        ti_id=run.board.ti_ids[one.task],
        dag_run_id=run.key,
        dispatch_id=turn.memory.ids.take(),
        lane="poll",  # until the runner has made it, and sees that it only waits for a moment
        classpath=start.classpath,
        source=start.source,
        kwargs="{}",
        next_method=start.next_method,
        next_kwargs=_encode(start.next_kwargs).decode(),
        code_hash=run.version.code_hash,
        fileloc=run.version.fileloc,
        queue=task.queue,
        due_at=None,
        timeout_at=None if start.timeout_us is None else turn.now + start.timeout_us,
        external_key=None,
        on_timeout=start.on_timeout,
        rank=one.rank,
        start=_encode(made_of).decode(),
    )
