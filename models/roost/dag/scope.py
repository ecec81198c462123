"""Which DAG and group a new task joins: the ``with`` blocks that are open (S7)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roost.dag.definition import DAG
    from roost.dag.group import TaskGroup
    from roost.dag.operator import BaseOperator

__all__ = [
    "begin_notes",
    "current_dag",
    "current_group",
    "declared_dags",
    "detached",
    "end_notes",
    "enter_dag",
    "enter_group",
    "is_detached",
    "leave",
    "note_declaration",
    "note_task",
]

_open: list[tuple[DAG | None, TaskGroup | None]] = []
_notes: list[list[BaseOperator]] = []
_declared: list[tuple[int, DAG]] = []


def enter_dag(dag: DAG) -> None:
    """New tasks join ``dag`` until :func:`leave`."""
    _open.append((dag, None))


def enter_group(group: TaskGroup) -> None:
    """New tasks join ``group`` and its DAG until :func:`leave`."""
    _open.append((group.dag, group))


@contextmanager
def detached() -> Iterator[None]:
    """Tasks made inside join no DAG and are linked to nothing: they stand for one in a DAG."""
    _open.append((None, None))
    try:
        yield
    finally:
        _open.pop()


def is_detached() -> bool:
    """Whether :func:`detached` is the innermost block."""
    return bool(_open) and _open[-1][0] is None


def leave() -> None:
    """End the innermost block."""
    _open.pop()


def current_dag() -> DAG | None:
    """The DAG of the innermost open block."""
    return _open[-1][0] if _open else None


def current_group() -> TaskGroup | None:
    """The group of the innermost open block; None directly inside a DAG."""
    return _open[-1][1] if _open else None


def begin_notes() -> None:
    """Note every task that is made until :func:`end_notes`; these may be nested."""
    _notes.append([])


def note_task(task: BaseOperator) -> None:
    """A task was made."""
    for notes in _notes:
        notes.append(task)


def end_notes() -> list[BaseOperator]:
    """The tasks that were made since the last :func:`begin_notes`."""
    return _notes.pop()


def note_declaration(dag: DAG, frame: FrameType | None) -> None:
    """Remember a DAG whose ``with`` block or ``@dag`` call stands at the top level of a file.

    It needs no name in the module to be found. One inside a function is not remembered: a DAG
    that is local to a function is not loaded (S5).
    """
    if frame is not None and frame.f_locals is frame.f_globals:
        _declared.append((id(frame.f_globals), dag))


def declared_dags(module_globals: dict[str, object]) -> list[DAG]:
    """Take the DAGs that were declared at the top level of the module with these globals."""
    mine = [dag for owner, dag in _declared if owner == id(module_globals)]
    _declared[:] = [entry for entry in _declared if entry[0] != id(module_globals)]
    return mine


def caller(depth: int) -> FrameType | None:
    """The frame ``depth`` calls above the caller of this function, None beyond the outermost."""
    try:
        return sys._getframe(depth + 2)
    except ValueError:
        return None
