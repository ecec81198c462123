"""``with setup >> teardown:`` puts the tasks made inside between the two (H18)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roost.dag import scope
from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.operator import BaseOperator

__all__ = ["close_bracket", "open_bracket"]


def open_bracket(task: BaseOperator) -> None:
    """Begin to note the tasks that are made.

    Raises:
        DagError: ``task`` is neither a setup nor a teardown.
    """
    if not task.is_setup and not task.is_teardown:
        raise DagError(
            f"with {task.task_id}: only a setup or a teardown can stand there; "
            "mark it by as_setup() or as_teardown()"
        )
    scope.begin_notes()


def close_bracket(task: BaseOperator) -> None:
    """Link what was made since: after the setups and before the teardowns."""
    made = [other for other in scope.end_notes() if other is not task]
    if task.is_teardown:
        teardowns = [task]
        setups = [other for other in task.upstream_list if other.is_setup]
    else:
        setups = [task]
        teardowns = [other for other in task.downstream_list if other.is_teardown]
    inside = {other.task_id for other in made}
    firsts = [other for other in made if inside.isdisjoint(other.upstream)]
    lasts = [other for other in made if inside.isdisjoint(other.downstream)]
    for first in firsts:
        first.set_upstream(setups)
    for last in lasts:
        last.set_downstream(teardowns)
