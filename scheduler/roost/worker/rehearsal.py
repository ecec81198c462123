"""A rehearsal: one task does nothing, one defers, in the zygote before anything is forked.

A young process pays for every memory page that it is the first to write to. Code that has run
before writes less: the interpreter has specialised it, knows where attributes are found, and has
looked up the C library's functions.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import structs

from roost.dag import DAG
from roost.dag.loader import LoadedFile
from roost.operators import BaseOperator, PythonOperator
from roost.support.clock import EPOCH
from roost.support.frames import pack
from roost.support.wire import TaskSpec
from roost.triggers import DateTimeTrigger
from roost.worker.taskproc import Line, work

__all__ = ["rehearse"]

# CPython specialises a function's code after eight calls, and then looks at each instruction.
_TIMES = 16


def rehearse() -> None:
    """Run a task process's work some times, up to the outcome, in this process."""
    dag = DAG("rehearsal")
    PythonOperator(task_id="nothing", python_callable=_nothing, dag=dag)
    _Waits(task_id="waits", dag=dag)
    loaded = LoadedFile({dag.dag_id: dag}, {}, sys, [], "")
    near, far = socket.socketpair()
    with near, far, _silence():
        line = Line(far.fileno())
        for _ in range(_TIMES):
            for task_id in dag.task_dict:
                near.sendall(pack(structs.replace(_SPEC, task_id=task_id)))
                work(line, loaded)
                near.recv(4096)


@contextmanager
def _silence() -> Iterator[None]:
    """Nobody is to read in the worker's log that a task was deferred which is none.

    Their lines go nowhere: not logged at all, they would leave the code that writes them cold.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    sys.stderr.flush()
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _nothing() -> None:
    pass


class _Waits(BaseOperator):
    def execute(self, context: dict[str, Any]) -> None:
        self.defer(trigger=DateTimeTrigger(EPOCH), method_name="execute")


_SPEC = TaskSpec(
    dispatch_id=0,
    ti_id=0,
    dag_id="rehearsal",
    run_id="",
    task_id="nothing",
    map_index=-1,
    try_number=1,
    max_tries=1,
    run_type="manual",
    operator="PythonOperator",
    code_hash="",
    fileloc="",
    logical_date=0,
    interval_start=0,
    interval_end=0,
    run_queued_at=0,
    run_start_date=0,
    start_date=0,
    pool="",
    pool_slots=1,
    queue="",
    priority_weight=1,
    conf=msgspec.Raw(b"{}"),
)
