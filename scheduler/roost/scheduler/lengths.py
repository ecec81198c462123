"""How many instances a mapped task has: from literals, and from what other tasks left (H17)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from roost.dag.model import Length, SerializedExpand
from roost.models.queries.mapping import Left
from roost.models.states import State
from roost.scheduler.board import Board

__all__ = ["NOTHING", "NoLength", "length_of", "xcoms_of"]

NOTHING = "mapped over nothing: its length is 0"
_Left = Mapping[tuple[str, str], Left]


class NoLength(Exception):
    """There is no length: the state to which the task ends instead, and why."""

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state = state


def xcoms_of(expand: SerializedExpand) -> Iterator[tuple[str, str]]:
    """``(task_id, key)`` of every XCom whose length is wanted."""
    for factor in expand.factors:
        yield from _xcoms(factor)


def length_of(board: Board, expand: SerializedExpand, left: _Left, most: int) -> int:
    """The product of the lengths of the factors.

    Args:
        board: of the run.
        expand: what is mapped over.
        left: what was left of :func:`xcoms_of` it; absent: nothing.
        most: more instances than that are refused.

    Raises:
        NoLength: one of the factors has none, or there would be too many instances.
    """
    length = math.prod(_measure(board, factor, left) for factor in expand.factors)
    if length > most:
        raise NoLength(
            State.FAILED,
            f"mapped over {length} values, more than core.max_map_length = {most}: "
            "map over fewer, or raise that setting",
        )
    return length


def _xcoms(length: Length) -> Iterator[tuple[str, str]]:
    if length.kind == "xcom":
        yield length.task_id, length.key
    for part in length.parts:
        yield from _xcoms(part)


def _measure(board: Board, length: Length, left: _Left) -> int:
    match length.kind:
        case "literal":
            return length.count
        case "zip":
            parts = [_measure(board, part, left) for part in length.parts]
            return (max if length.longest else min)(parts, default=0)
        case "concat":
            return sum(_measure(board, part, left) for part in length.parts)
        case "xcom":
            return _of_xcom(board, length, left.get((length.task_id, length.key), Left(0, None)))


def _of_xcom(board: Board, length: Length, left: Left) -> int:
    plan = board.plan
    source = plan.index[length.task_id]
    name = f"XCom {length.key!r} of {length.task_id!r}"
    if source in plan.mapped:
        return left.values
    if not left.values:
        state = board.states[source]
        if state in (State.SKIPPED, State.REMOVED):
            return 0
        if state != State.SUCCESS:
            raise NoLength(
                State.UPSTREAM_FAILED, f"mapped over {name}, which is {state} and left none"
            )
        raise NoLength(
            State.FAILED, f"mapped over {name}, which left none: return a list, tuple or dict"
        )
    if left.length is None:
        raise NoLength(
            State.FAILED, f"mapped over {name}, which is not a list, tuple or dict: return one"
        )
    return left.length
