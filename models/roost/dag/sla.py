"""SLA misses in a task process: the DAG's ``sla_miss_callback`` and the mail (S102, S103)."""

from __future__ import annotations

import html
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from roost.dag.mail import send_email
from roost.support.clock import from_us

if TYPE_CHECKING:
    from roost.dag.definition import DAG

__all__ = ["BlockingTask", "SlaMiss", "sla_arguments", "sla_mail"]


class SlaMiss(msgspec.Struct, frozen=True):
    """One task that had not succeeded in one run when its time was up. Moments are in UTC."""

    task_id: str
    dag_id: str
    logical_date: datetime
    timestamp: datetime

    @property
    def execution_date(self) -> datetime:
        """Older name of ``logical_date`` (S20)."""
        return self.logical_date


class BlockingTask(msgspec.Struct, frozen=True):
    """A task instance of such a run that has not succeeded."""

    task_id: str
    dag_id: str
    run_id: str
    map_index: int
    state: str
    try_number: int
    logical_date: datetime

    @property
    def execution_date(self) -> datetime:
        """Older name of ``logical_date`` (S20)."""
        return self.logical_date


def sla_arguments(
    dag: DAG, detail: bytes
) -> tuple[DAG, str, str, list[SlaMiss], list[BlockingTask]]:
    """What ``sla_miss_callback`` is called with (S103).

    The two lists of tasks are texts, a line for each: ``task_id on logical date``; of a mapped
    task that blocks ``task_id[map_index] on logical date`` (H17).
    """
    data: dict[str, list[Any]] = msgspec.json.decode(detail)
    slas = [
        SlaMiss(task_id, dag.dag_id, from_us(date), from_us(at))
        for task_id, date, at in data["missed"]
    ]
    blocking = [
        BlockingTask(task_id, dag.dag_id, run_id, map_index, state, number, from_us(date))
        for task_id, map_index, state, number, run_id, date in data["blocking"]
    ]
    return dag, _lines(slas), _lines(blocking), slas, blocking


def _lines(items: list[SlaMiss] | list[BlockingTask]) -> str:
    return "\n".join(f"{_name(one)} on {one.logical_date.isoformat()}" for one in items)


def _name(one: SlaMiss | BlockingTask) -> str:
    if isinstance(one, BlockingTask) and one.map_index >= 0:
        return f"{one.task_id}[{one.map_index}]"
    return one.task_id


def sla_mail(
    dag: DAG, missed: str, blocking: str, slas: list[SlaMiss], _tis: list[BlockingTask]
) -> None:
    """Tell the addresses of the tasks that were missed (S102)."""
    tasks = [dag.get_task(sla.task_id) for sla in slas if dag.has_task(sla.task_id)]
    to = list(dict.fromkeys(address for task in tasks for address in task.email))
    send_email(
        to,
        f"[Roost] SLA missed in DAG {dag.dag_id}: {len(slas)} tasks",
        f"<p>These tasks missed their SLA:</p><pre>{html.escape(missed)}</pre>"
        f"<p>Blocking tasks:</p><pre>{html.escape(blocking) or 'none'}</pre>",
    )
