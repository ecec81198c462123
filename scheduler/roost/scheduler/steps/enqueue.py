"""Hand over what fits: slots of the executor and of pools, limits of runs and tasks, best first."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple, TypeGuard

from roost.dag.model import SerializedTask
from roost.models.queries import handoffs
from roost.models.queries.handoffs import Handoff
from roost.models.slots import share
from roost.models.states import Event
from roost.scheduler.book import ActiveRun, Waiting
from roost.scheduler.gates import TaskKey
from roost.scheduler.ready import UNLIMITED
from roost.scheduler.steps.start import start_in_triggers
from roost.scheduler.turn import Turn

__all__ = ["enqueue"]

_Group = tuple[tuple[Event, ...], tuple[str, ...], tuple[str, ...]]


class _Item(NamedTuple):
    """A task instance to move; ``need`` is what it takes of its pool, in hundredths."""

    run: ActiveRun
    task: int  # index on the run's board
    row: dict[str, Any]
    need: int = 0


def enqueue(turn: Turn, shrinking: frozenset[str]) -> None:
    """Queue the candidates that every limit admits; note the others as scheduled.

    Pool slots given back in this turn are spent again without touching the pool's row. Only when
    more are wanted is the row locked and counted: a limit shared by several schedulers is never
    judged by an unlocked row (S8).

    Args:
        turn: the turn.
        shrinking: pools with more slots in use than they have: what comes back is not spent.
    """
    changes: dict[str, int] = {pool: -slots for pool, slots in turn.released.items()}
    slots = max(0, turn.parallelism - turn.book.in_flight)
    tasks: Counter[TaskKey] = Counter()
    tasks.subtract(turn.let_go_of)
    room = _room_of_tasks(turn, slots)
    if slots > 0:
        turn.memory.ready.let_in(room)
    free, sizes = _free_slots(turn, slots, shrinking)
    start_in_triggers(turn, free, changes)
    admitted, turn.starving, _ = turn.memory.ready.admit(slots, free, sizes)
    turn.reserve_ids(len(admitted) + len(turn.callbacks))
    groups: dict[_Group, list[_Item]] = defaultdict(list)
    for candidate in admitted:
        run, index = candidate.run, candidate.task
        waiting = run.waiting.pop(index)
        row = {"dispatch_id": turn.memory.ids.take(), "queued_at": turn.now}
        key, row = _row(run, index, waiting, Event.ENQUEUE, row)
        groups[key].append(_Item(run, index, row, candidate.need))
        run.holding.pop(index, None)
        changes[candidate.pool] = changes.get(candidate.pool, 0) + candidate.need
        if _is_counted(candidate.limited):
            tasks[run.dag_id, candidate.limited.task_id] += 1
    _note_waiting(turn, groups)
    for key, items in groups.items():
        _write(turn, key, items, changes, tasks)
    turn.callbacks = [one._replace(id=turn.memory.ids.take()) for one in turn.callbacks]
    handoffs.create_dispatches(turn.tx, turn.handoffs + turn.callbacks)
    handoffs.change_tasks(turn.tx, tasks)
    handoffs.change_pools(turn.tx, changes)


def _is_counted(task: SerializedTask | None) -> TypeGuard[SerializedTask]:
    return task is not None and task.max_active_tis_per_dag is not None


def _room_of_tasks(turn: Turn, slots: int) -> dict[TaskKey, int]:
    """How many more may go of tasks with ``max_active_tis_per_dag`` (H4): from locked rows.

    Locked before pools and after the limits of runs, by everybody.
    """
    wanted = turn.memory.ready.shared if slots > 0 else ()
    keys = {*wanted, *turn.let_go_of}
    if not keys:
        return {}
    room = handoffs.lock_tasks(turn.tx, keys)
    return {key: max(0, n + turn.let_go_of.get(key, 0)) for key, n in room.items()}


def _free_slots(
    turn: Turn, slots: int, shrinking: frozenset[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Free slots by pool, in hundredths: those given back now, and those of the locked row where
    they may not suffice. And all slots of the pools that were locked, in hundredths, too."""
    wanted = turn.memory.ready.wanted(slots)
    free = {
        pool: slots for pool, slots in turn.released.items() if slots > 0 and pool not in shrinking
    }
    short = {pool for pool, most in wanted.items() if most > free.get(pool, 0)}
    short.update(turn.memory.ready.elder_pools)
    short.update(turn.memory.starters.pools(turn.memory.holding_pools))
    sizes: dict[str, int] = {}
    if short:
        # With those whose counts may change below: a second lock, in another order than that of
        # another scheduler, would be a deadlock.
        changing = {*short, *wanted, *turn.released}
        for row in handoffs.lock_pools(turn.tx, sorted(changing)):
            if row.pool not in short:
                continue
            sizes[row.pool] = UNLIMITED if row.slots < 0 else share(row.slots)
            free[row.pool] = max(0, sizes[row.pool] - row.used + turn.released.get(row.pool, 0))
    return free, sizes


def _row(
    run: ActiveRun, index: int, waiting: Waiting, last: Event | None, columns: dict[str, Any]
) -> tuple[_Group, dict[str, Any]]:
    path = waiting.path + ((last,) if last else ())
    row = {"id": run.board.ti_ids[index], **waiting.columns, **columns}
    sets = tuple(name for name in row if name != "id")
    guards: tuple[str, ...] = ()
    if waiting.guard is not None:
        guards = (waiting.guard[0],)
        row[f"if_{waiting.guard[0]}"] = waiting.guard[1]
    return (path, sets, guards), row


def _note_waiting(turn: Turn, groups: dict[_Group, list[_Item]]) -> None:
    """Write ``scheduled`` for what became a candidate in this turn and was not admitted."""
    for run in turn.touched.values():
        if not run.alive:
            continue
        for index, waiting in run.unwritten():
            key, row = _row(run, index, waiting, None, {})
            groups[key].append(_Item(run, index, row))
            run.waiting[index] = Waiting((), {})


def _write(
    turn: Turn,
    key: _Group,
    items: list[_Item],
    changes: dict[str, int],
    tasks: Counter[TaskKey],
) -> None:
    path, sets, guards = key
    moved = turn.move(path, [item.row for item in items], sets=sets, guards=guards)
    for item in items:
        run, index, row, _ = item
        now = moved.get(row["id"])
        if now is None:
            _doubt(turn, item, Event.ENQUEUE in path, changes, tasks)
        elif Event.ENQUEUE in path:
            task = run.board.tasks[index]
            turn.handoffs.append(
                Handoff(
                    id=row["dispatch_id"],
                    ti_id=row["id"],
                    dag_run_id=run.key,
                    try_number=now.try_number,
                    queue=task.queue,
                    priority=run.board.weights[index],
                )
            )


def _doubt(
    turn: Turn,
    item: _Item,
    admitted: bool,
    changes: dict[str, int],
    tasks: Counter[TaskKey],
) -> None:
    """The book was wrong about a task instance: others moved it. Read its run again."""
    if admitted:
        task = item.run.board.tasks[item.task]
        changes[task.pool] = changes.get(task.pool, 0) - item.need
        if _is_counted(task):
            tasks[item.run.dag_id, task.task_id] -= 1
    turn.doubt(item.run)
