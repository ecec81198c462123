"""The cluster policy: an administrator's rules over every DAG and task (S108).

``core.local_settings`` names a Python file that may define ``dag_policy(dag)``,
``task_policy(task)`` (or ``policy``, its older name) and ``task_instance_mutation_hook(ti)``. They
are called wherever a DAG file is loaded to be stored or run, so that what the scheduler decides on
is what runs: on each DAG, then on each of its tasks. They may change what they are given, or raise
``ClusterPolicyViolation`` (the file's import error) or ``ClusterPolicySkipDag``.
"""

from __future__ import annotations

import linecache
import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from roost.dag import knobs
from roost.exceptions import ClusterPolicySkipDag, ClusterPolicyViolation, DagError
from roost.support.user_settings import local_settings

if TYPE_CHECKING:
    from roost.dag.definition import DAG
    from roost.dag.operator import BaseOperator

__all__ = ["Policy", "TaskInstanceView", "load_policy"]

log = logging.getLogger("roost.dag")
_Hook = Callable[[Any], object]


class TaskInstanceView:
    """What ``task_instance_mutation_hook`` is given: every instance of one task, before any is.

    The hook is called once for each task when its file is loaded, not for each instance: the
    scheduler runs no user code. What it sets for ``queue``, ``pool``, ``pool_slots`` or
    ``priority_weight`` holds for all instances; anything else cannot be set.
    """

    __slots__ = ("_task",)
    _task: BaseOperator
    run_id = ""
    map_index = -1
    try_number = 1

    def __init__(self, task: BaseOperator) -> None:
        object.__setattr__(self, "_task", task)

    @property
    def task(self) -> BaseOperator:
        """The task."""
        return self._task

    def __getattr__(self, name: str) -> Any:
        if name == "operator":
            return self._task.task_type
        if name in ("task_id", "dag_id", *_SETTABLE):
            return getattr(self._task, name)
        raise AttributeError(f"a task instance has no {name!r} when its file is loaded")

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _SETTABLE:
            raise AttributeError(f"{name!r} cannot be set; only {', '.join(_SETTABLE)}")
        setattr(self._task, name, value)


_SETTABLE = ("queue", "pool", "pool_slots", "priority_weight")


class Policy(NamedTuple):
    """The hooks of one policy file."""

    path: str
    on_dag: _Hook | None
    on_task: _Hook | None
    on_instance: _Hook | None

    def apply(self, dags: dict[str, DAG]) -> None:
        """Have the hooks change ``dags``; those they skip are taken out.

        Raises:
            DagError: one line: what the policy objects to, or how it failed.
        """
        for dag_id, dag in list(dags.items()):
            try:
                self._call(self.on_dag, dag, f"DAG {dag_id!r}")
                for task in dag.tasks:
                    of = f"task {task.task_id!r} of DAG {dag_id!r}"
                    self._call(self.on_task, task, of)
                    self._call(self.on_instance, TaskInstanceView(task), of)
                    _check(task, of)
            except ClusterPolicySkipDag as error:
                log.info("DAG %s is skipped by the cluster policy: %s", dag_id, error)
                del dags[dag_id]

    def _call(self, hook: _Hook | None, subject: object, of: str) -> None:
        if hook is None:
            return
        try:
            hook(subject)
        except ClusterPolicySkipDag:
            raise
        except ClusterPolicyViolation as error:
            reason = " ".join(str(error).split())
            raise DagError(f"{of} is refused by the cluster policy: {reason}") from None
        except Exception as error:
            raise DagError(
                f"{_where(self.path, error)}: cluster policy on {of}: {_say(error)}"
            ) from None


def load_policy() -> Policy | None:
    """The policy in force, None without one.

    Raises:
        DagError: one line: the file cannot be read or executed.
    """
    path = local_settings()
    try:
        with open(path or "/nonexistent", "rb") as file:
            source = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DagError(f"{path}: the cluster policy cannot be read: {error.strerror}") from None
    names: dict[str, Any] = {"__name__": "roost_local_settings", "__file__": path}
    try:
        text = source.decode()
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        exec(compile(source, path, "exec", dont_inherit=True), names)  # noqa: S102 - as DAG files
    except (Exception, SystemExit) as error:
        where = _where(path, error)
        raise DagError(f"{where}: the cluster policy cannot be loaded: {_say(error)}") from None
    on_task = names.get("task_policy") or names.get("policy")
    return Policy(path, names.get("dag_policy"), on_task, names.get("task_instance_mutation_hook"))


def _check(task: BaseOperator, of: str) -> None:
    """What the policy may have set, as strictly as what the author sets."""
    knobs.text(of, "queue", task.queue)
    knobs.text(of, "pool", task.pool)
    knobs.whole(of, "pool_slots", task.pool_slots, least=1)
    knobs.whole(of, "priority_weight", task.priority_weight)
    knobs.whole(of, "retries", task.retries, least=0)
    knobs.maybe_duration(of, "execution_timeout", task.execution_timeout)


def _where(path: str, error: BaseException) -> str:
    """The file and the line of it that failed."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}:{error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    return f"{path}:{lines[-1]}" if lines else path


def _say(error: BaseException) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(message.split())}"
