"""Which runs and task instances a user's edit means, and asking before it is done."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import click
import msgspec

from roost.cli.lookup import find_run
from roost.cli.output import emit, output_option
from roost.cli.words import moment_of
from roost.dag.model import SerializedDag
from roost.exceptions import RoostException
from roost.models.engine import Tx
from roost.models.queries import listing, selection, user_edits
from roost.models.queries.selection import SelectedRun
from roost.models.state_edits import Edited
from roost.models.states import State
from roost.support.config import Config

__all__ = [
    "Chosen",
    "Wanted",
    "agreed",
    "ask_options",
    "choose",
    "family",
    "has_terminal",
    "of_instance",
    "range_options",
    "runs_of",
    "states_of",
    "told",
]

F = TypeVar("F", bound=Callable[..., Any])
_COLUMNS = ("dag_id", "run_id", "task_id", "map_index", "state", "becomes")
_FAILED = frozenset({State.FAILED, State.UPSTREAM_FAILED})


class Chosen(NamedTuple):
    """A task instance that an edit is about."""

    id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str
    becomes: str


class Wanted(NamedTuple):
    """What ``tasks clear`` says about which task instances it means.

    Attributes:
        task_regex: found anywhere in the task id; None: every task.
        upstream, downstream: also everything before, after those tasks.
        states: only task instances in these; empty: in any.
        map_index: only this instance of those tasks, see :func:`of_instance`; None: all.
        subdags: with a SubDagOperator's task also the tasks of the run that it started (S97).
    """

    task_regex: str | None = None
    upstream: bool = False
    downstream: bool = False
    states: frozenset[str] = frozenset()
    map_index: int | None = None
    subdags: bool = True


def range_options(command: F) -> F:
    """``-s``, ``-e`` and ``--run-id``: which runs."""
    for decorate in (
        click.option("--run-id", multiple=True, help="This run; may be given several times."),
        click.option("-e", "--end-date", help="Runs up to this logical date, included."),
        click.option(
            "-s", "--start-date",
            help="Runs from this logical date on (ISO 8601; no zone: core.default_timezone).",
        ),
    ):  # fmt: skip
        command = decorate(command)
    return command


def ask_options(command: F) -> F:
    """``--dry-run``, ``-y`` and ``-o``."""
    for decorate in (
        output_option,
        click.option("-y", "--yes", is_flag=True, help="Do it without asking."),
        click.option("--dry-run", is_flag=True, help="Only list what would be changed."),
    ):
        command = decorate(command)
    return command


def states_of(only_failed: bool, only_running: bool) -> frozenset[str]:
    """The states that ``--only-failed`` and ``--only-running`` mean; both: either."""
    return (_FAILED if only_failed else frozenset()) | (
        frozenset({State.RUNNING}) if only_running else frozenset()
    )


def runs_of(
    tx: Tx,
    config: Config,
    dag_id: str,
    run_ids: Sequence[str],
    start_date: str | None,
    end_date: str | None,
) -> list[SelectedRun]:
    """The runs that the options name.

    Raises:
        UsageError: they name none, or in two ways.
        NotFound: there is no run of that id.
    """
    dated = start_date is not None or end_date is not None
    if dated == bool(run_ids):
        raise click.UsageError("say which runs: either --run-id, or -s/--start-date, -e/--end-date")
    if run_ids:
        for run_id in run_ids:
            find_run(tx, config, dag_id, run_id)
        return selection.runs_named(tx, dag_id, run_ids)
    zone = config.core.default_timezone
    start = None if start_date is None else moment_of(start_date, zone)
    end = None if end_date is None else moment_of(end_date, zone)
    if start is not None and end is not None and start > end:
        raise click.UsageError(f"-s {start_date} is later than -e {end_date}")
    return selection.runs_between(tx, dag_id, start, end)


def family(
    dag: SerializedDag, task_ids: Iterable[str], *, upstream: bool, downstream: bool
) -> set[str]:
    """Tasks and, where asked for, everything before and after them."""
    below = {task.task_id: set(task.downstream) for task in dag.tasks}
    above: dict[str, set[str]] = {task_id: set() for task_id in below}
    for task_id, children in below.items():
        for child in children:
            above[child].add(task_id)
    start = list(task_ids)
    found = set(start)
    for wanted, edges in ((upstream, above), (downstream, below)):
        left = list(start) if wanted else []
        reached: set[str] = set()
        while left:
            new = edges[left.pop()] - reached
            reached |= new
            left += new
        found |= reached
    return found


def of_instance(
    dag: SerializedDag, named: Iterable[str], map_index: int | None
) -> Callable[[Any], bool]:
    """What says whether a task instance is meant by ``--map-index``.

    Of the named tasks, and of those beside them in a mapped group, that instance is. What lies
    before or after them elsewhere has no such instance, or another one by that number: all of it.
    """
    groups = {task.task_id: task.mapped_group for task in dag.tasks}
    only = set(named)
    inside = {groups.get(task_id) for task_id in only} - {None}

    def meant(row: Any) -> bool:
        bound = row.task_id in only or groups.get(row.task_id) in inside
        return map_index is None or not bound or row.map_index == map_index

    return meant


def choose(tx: Tx, dag: SerializedDag, runs: Sequence[SelectedRun], wanted: Wanted) -> list[Chosen]:
    """The task instances of runs of one DAG that are to be cleared, those of sub-DAGs after them.

    Raises:
        UsageError: the regular expression is none, or no task matches it.
    """
    named = _matching(dag, wanted)
    names = family(dag, named, upstream=wanted.upstream, downstream=wanted.downstream)
    meant = of_instance(dag, named, wanted.map_index)
    run_ids = {run.id: run.run_id for run in runs}
    chosen = [
        Chosen(row.id, dag.dag_id, run_ids[row.dag_run_id], row.task_id, row.map_index, row.state,
               State.NONE)
        for row in user_edits.instances_of_runs(tx, run_ids)
        if row.task_id in names
        and row.state not in (State.NONE, State.REMOVED)
        and (not wanted.states or row.state in wanted.states)
        and meant(row)
    ]  # fmt: skip
    if wanted.subdags:
        inner = Wanted(states=wanted.states)
        for task in dag.tasks:
            if task.operator == "SubDagOperator" and task.task_id in names:
                chosen += _below(tx, str(task.extra.get("subdag_id", "")), runs, inner)
    return chosen


def _matching(dag: SerializedDag, wanted: Wanted) -> list[str]:
    task_ids = [task.task_id for task in dag.tasks]
    if wanted.task_regex is None:
        return task_ids
    try:
        pattern = re.compile(wanted.task_regex)
    except re.error as error:
        message = f"-t {wanted.task_regex!r} is no regular expression: {error}"
        raise click.UsageError(message) from None
    matching = [task_id for task_id in task_ids if pattern.search(task_id)]
    if not matching:
        raise click.UsageError(
            f"no task of {dag.dag_id} matches {wanted.task_regex!r}; "
            f"`roost tasks list {dag.dag_id}` shows them"
        )
    return matching


def _below(tx: Tx, dag_id: str, runs: Sequence[SelectedRun], wanted: Wanted) -> list[Chosen]:
    """What a SubDagOperator's runs hold: they have its DAG's run ids."""
    row = listing.dag_details(tx, dag_id)
    if row is None:
        return []
    inner = selection.runs_named(tx, dag_id, [run.run_id for run in runs])
    return choose(tx, msgspec.json.decode(row.data, type=SerializedDag), inner, wanted)


def agreed(
    chosen: Sequence[Chosen], question: str, *, dry_run: bool, yes: bool, output: str
) -> bool:
    """List what is to be changed and ask; True when it is to be done.

    Raises:
        RoostException: there is nobody to ask.
    """
    rows = [row._asdict() for row in chosen]
    if dry_run:
        emit(rows, _COLUMNS, output)
        return False
    if yes:
        return True
    if not has_terminal():
        raise RoostException(
            "this asks before it changes anything, and there is no terminal to ask at; "
            "give -y to do it, or --dry-run to see what it would change"
        )
    emit(rows, _COLUMNS, output)
    return click.confirm(question)


def has_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def told(verb: str, edited: Edited) -> str:
    """What was done, in one line."""
    line = f"{verb} {_many(edited.moved + edited.wished, 'task instance')} in "
    line += _many(edited.runs, "run")
    if edited.wished:
        line += f"; {edited.wished} of them queued or running: ended first, {verb} then"
    return line


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
