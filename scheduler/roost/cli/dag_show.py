"""``roost dags show``: the graph of a DAG as text."""

from __future__ import annotations

from collections.abc import Iterator

import click

from roost.cli.base import Command
from roost.cli.lookup import find_dag
from roost.cli.session import reading
from roost.dag.model import SerializedDag, SerializedTask

__all__ = ["draw", "show"]


@click.command(cls=Command)
@click.argument("dag_id")
def show(dag_id: str) -> None:
    """Draw a DAG's tasks and what follows what.

    Every task is drawn once in full, under the first task it follows; `^` marks a task that is
    drawn elsewhere, and a join names all that it follows.
    """
    with reading() as (config, tx):
        row, dag = find_dag(tx, config, dag_id)
    schedule = row.schedule or "no schedule"
    paused = ", paused" if row.is_paused else ""
    click.echo(f"{dag_id} ({schedule}, {len(dag.tasks)} tasks{paused})")
    for line in draw(dag):
        click.echo(line)


def draw(dag: SerializedDag) -> Iterator[str]:
    """The lines of a DAG's tree: a task stands below the last of its upstream that is drawn."""
    upstream: dict[str, list[str]] = {task.task_id: [] for task in dag.tasks}
    for task in dag.tasks:
        for child in task.downstream:
            upstream[child].append(task.task_id)
    tasks = {task.task_id: task for task in dag.tasks}
    # The last parent in topological order owns the child, so that a join comes after its parts.
    order = {task.task_id: at for at, task in enumerate(dag.tasks)}
    owner = {name: max(above, key=order.__getitem__) for name, above in upstream.items() if above}
    roots = [name for name, above in upstream.items() if not above]
    stack = [(name, "", at == len(roots) - 1) for at, name in enumerate(roots)]
    stack.reverse()
    while stack:
        name, indent, last = stack.pop()
        task = tasks[name]
        elsewhere = [child for child in task.downstream if owner[child] != name]
        yield f"{indent}{'└─' if last else '├─'} {_label(task, upstream[name], elsewhere)}"
        children = [child for child in task.downstream if owner[child] == name]
        below = indent + ("   " if last else "│  ")
        marked = [(child, below, at == len(children) - 1) for at, child in enumerate(children)]
        stack.extend(reversed(marked))


def _label(task: SerializedTask, above: list[str], elsewhere: list[str]) -> str:
    notes = [task.operator]
    if task.trigger_rule != "all_success":
        notes.append(task.trigger_rule)
    if task.pool != "default_pool":
        notes.append(f"pool {task.pool}")
    label = f"{task.task_id} [{', '.join(notes)}]"
    if len(above) > 1:
        label += f" after {', '.join(above)}"
    if elsewhere:
        label += f" ^ {', '.join(elsewhere)}"
    return label
