"""Expand mapped tasks that may run into as many instances as they have values (H17)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from roost.models import expansion
from roost.models.queries import mapping
from roost.models.states import Event, State
from roost.scheduler.book import ActiveRun
from roost.scheduler.lengths import NOTHING, NoLength, length_of, xcoms_of
from roost.scheduler.mapped import MappedBoard
from roost.scheduler.plan import Unit
from roost.scheduler.steps.callbacks import task_ended
from roost.scheduler.turn import Turn

__all__ = ["expand"]

_END = ("end_date",)
_EVENTS = {
    State.SKIPPED: Event.SKIP,
    State.FAILED: Event.REFUSE,
    State.UPSTREAM_FAILED: Event.UPSTREAM_FAIL,
    State.REMOVED: Event.REMOVE,
}


def expand(turn: Turn, run: ActiveRun, shells: Sequence[int]) -> None:
    """Answer a board that asks for the lengths of mapped tasks.

    All tasks of a mapped group expand together. Instances that exist already, and of which none
    has been decided since they were cleared, are brought to the length of today.
    """
    board = run.board
    assert isinstance(board, MappedBoard), "only a mapped board asks"  # noqa: S101
    asking: dict[Unit, list[int]] = {}
    for shell in shells:
        asking.setdefault(board.plan.mapped[shell], []).append(shell)
    for unit, members in asking.items():
        try:
            _expand(turn, run, board, unit, members)
        except NoLength as unknown:
            undecided = [index for shell in members for index in board.undecided(shell)]
            _end(turn, run, unknown.state, undecided, str(unknown))


def _expand(turn: Turn, run: ActiveRun, board: MappedBoard, unit: Unit, asking: list[int]) -> None:
    fresh = [shell for shell in unit.members if not board.expanded(shell)]
    there = [shell for shell in unit.members if board.expanded(shell)]
    if there and set(asking).isdisjoint(there):
        # Left out when its group expanded, since it had been decided; now it was cleared.
        length = max(len(_present(board, shell)) for shell in there)
    else:
        length = _length(turn, run, unit)
    waiting = [shell for shell in fresh if board.states[shell] == State.NONE]
    if not length:
        _end(turn, run, State.SKIPPED, waiting, NOTHING)
        _shrink(turn, run, board, there, 1)
        left = [index for shell in there for index in board.undecided(shell)]
        _end(turn, run, State.SKIPPED, left, NOTHING)
        return
    if there:
        if not set(asking).isdisjoint(there):
            _resize(turn, run, board, there, length)
        if late := [board.ti_ids[shell] for shell in waiting if shell in asking]:
            expansion.expand(turn.tx, late, length)
            turn.doubt(run)
        return
    found = expansion.expand(turn.tx, [board.ti_ids[shell] for shell in waiting], length)
    instances = {shell: found.get(board.tasks[shell].task_id, []) for shell in waiting}
    if any(len(one) != length for one in instances.values()):
        turn.doubt(run)
        return
    board.expand(instances)
    run.grow(waiting)


def _resize(turn: Turn, run: ActiveRun, board: MappedBoard, shells: list[int], length: int) -> None:
    """Bring what is expanded to another length: remove, take back, add."""
    _shrink(turn, run, board, shells, length)
    back = [
        index
        for shell in shells
        for index in board.instances(shell)
        if board.states[index] == State.REMOVED and board.map_index(index) < length
    ]
    rows = [{"id": board.ti_ids[i], "first_try": run.tries[i], "end_date": None} for i in back]
    moved = turn.move(
        Event.CLEAR, rows, sets=("first_try", "end_date"), reason="its length has grown"
    )
    first = {
        board.ti_ids[board.instances(shell)[0]]: len(board.instances(shell)) for shell in shells
    }
    if expansion.add_instances(turn.tx, first, length) or len(moved) < len(rows):
        turn.doubt(run)
        return
    for index in back:
        run.begin_anew(index)
        board.settle(index, State.NONE)
    for shell in shells:
        board.confirm(shell)


def _shrink(
    turn: Turn, run: ActiveRun, board: MappedBoard, shells: Iterable[int], length: int
) -> None:
    surplus = [
        index
        for shell in shells
        for index in board.undecided(shell)
        if board.map_index(index) >= length
    ]
    _end(turn, run, State.REMOVED, surplus, f"its length is now {length}")


def _present(board: MappedBoard, shell: int) -> list[int]:
    return [i for i in board.instances(shell) if board.states[i] != State.REMOVED]


def _end(turn: Turn, run: ActiveRun, state: State, indices: Sequence[int], reason: str) -> None:
    """Move what is undecided to a final state."""
    board = run.board
    rows = [{"id": board.ti_ids[index], "end_date": turn.now} for index in indices]
    moved = turn.move(_EVENTS[state], rows, sets=_END, reason=reason)
    for index in indices:
        if board.ti_ids[index] not in moved:
            turn.doubt(run)
            continue
        board.settle(index, state)
        if state is State.FAILED:
            turn.ended[run.dag_id, board.tasks[index].task_id, str(state)] += 1
            task_ended(turn, run, index, state, ended_at=turn.now, error=reason)
            if board.plan.dag.fail_fast:
                turn.failing.append(run)


def _length(turn: Turn, run: ActiveRun, unit: Unit) -> int:
    left = mapping.lengths(turn.tx, run.key, sorted(set(xcoms_of(unit.expand))))
    return length_of(run.board, unit.expand, left, turn.max_map_length)
