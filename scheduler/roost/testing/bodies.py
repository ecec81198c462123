"""Running the body of a task inside a simulation: at once, while the simulation's clock stands.

``time.sleep`` in the body (looked up there, not imported by its own name) lets the body's own time
pass instead of waiting, and counts against ``execution_timeout``. When the body began and ended is
told in that time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from roost.dag.loader import LoadedFile
from roost.dag.operator import BaseOperator
from roost.dag.run import execute_task, run_task
from roost.dag.runtime import Supervisor
from roost.exceptions import TaskTimeout
from roost.support.clock import SECOND, duration_us, from_us, running_on
from roost.support.wire import Outcome, TaskSpec
from roost.testing.stub import Stub

__all__ = ["Bodies"]

Freeze = Callable[[datetime], Any]


def _freezer() -> Freeze | None:
    """What sets ``datetime.now()``, where the package time-machine is installed."""
    try:
        import time_machine  # late: only for tests of DAGs, and only where it is installed
    except ImportError:
        return None
    return lambda moment: time_machine.travel(moment, tick=False)


class Bodies:
    """Runs dispatches in this process.

    Args:
        files: the loaded DAG files by their place below the DAGs folder.
        stubs: what stands in for bodies, by ``dag_id.task_id``, ``task_id`` or ``*``.
        clock: the simulation's time in microseconds.
    """

    def __init__(
        self, files: Mapping[str, LoadedFile], stubs: Mapping[str, Stub], clock: Callable[[], int]
    ) -> None:
        self._files = files
        self._stubs = stubs
        self._clock = clock
        self._freeze = _freezer()

    def run(self, spec: TaskSpec, supervisor: Supervisor) -> Outcome:
        """Run one dispatch to its outcome, whose ``ended_at`` may lie ahead of the clock."""
        began = self._clock()
        spent = 0
        limit = None
        if spec.execution_timeout_us is not None:
            limit = spec.execution_timeout_us - spec.run_us

        def sleep(seconds: float) -> None:
            nonlocal spent
            if seconds < 0:
                raise ValueError("sleep length must be non-negative")
            spent += round(seconds * SECOND)
            if limit is not None and spent > limit:
                spent = limit
                raise TaskTimeout(
                    f"the task ran longer than its execution_timeout of "
                    f"{(spec.execution_timeout_us or 0) / SECOND:g} s"
                )

        stub = None if spec.callback is not None else self._stub(spec)
        with running_on(lambda: began + spent), _sleeping(sleep), self._frozen(began):
            if stub is None:
                outcome = run_task(spec, self._files[spec.fileloc], supervisor)
            else:
                outcome = self._run_stub(stub, spec, supervisor, sleep)
        if (outcome.error or "").endswith("KeyboardInterrupt"):
            raise KeyboardInterrupt  # of whoever runs the simulation, not of the task
        outcome.started_at, outcome.ended_at, outcome.run_us = began, began + spent, spent
        return outcome

    def _stub(self, spec: TaskSpec) -> Stub | None:
        if spec.next_method is not None:
            return None  # its first part was the real one
        for name in (f"{spec.dag_id}.{spec.task_id}", spec.task_id, "*"):
            if name in self._stubs:
                return self._stubs[name]
        return None

    def _run_stub(
        self, stub: Stub, spec: TaskSpec, supervisor: Supervisor, sleep: Callable[[float], None]
    ) -> Outcome:
        def execute(context: dict[str, Any]) -> Any:
            sleep(duration_us(stub.takes) / SECOND)
            return stub.run(context)

        dag = self._files[spec.fileloc].dags[spec.dag_id]
        task = _StandIn.of(dag.get_task(spec.task_id))
        task.execute = execute  # type: ignore[method-assign]
        return execute_task(task, spec, supervisor)

    @contextmanager
    def _frozen(self, moment: int) -> Iterator[None]:
        if self._freeze is None:
            yield
            return
        with self._freeze(from_us(moment)):
            yield


class _StandIn(BaseOperator):
    """A task with all its knobs and no templates: what they would read may not exist in a test."""

    @classmethod
    def of(cls, task: BaseOperator) -> _StandIn:
        """The stand-in of ``task``, mapped or not."""
        made: _StandIn = object.__new__(cls)
        made.__dict__.update(task.__dict__, template_fields=())
        return made


@contextmanager
def _sleeping(sleep: Callable[[float], None]) -> Iterator[None]:
    """Have ``time.sleep`` call another function."""
    before = time.sleep
    time.sleep = sleep  # type: ignore[assignment]  # it takes what users give
    try:
        yield
    finally:
        time.sleep = before
