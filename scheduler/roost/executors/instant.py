"""An executor without processes: every task succeeds at once, inside the scheduler.

For benchmarks of the scheduler alone, and for trying out how a DAG flows. No user code runs.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import msgspec
from sqlalchemy.exc import DBAPIError

from roost.executors.base import BaseExecutor
from roost.models.engine import Tx, transact
from roost.models.queries import dispatches, jobs
from roost.models.queries.handoffs import Handoff
from roost.support.clock import now_us
from roost.support.processes import me
from roost.support.wire import Outcome

__all__ = ["InstantExecutor"]

_LEFT_BEHIND = 100
log = logging.getLogger("roost.scheduler")


class InstantExecutor(BaseExecutor):
    """Claims what was submitted and writes a success for it, in one transaction a batch."""

    needs_worker: ClassVar[bool] = False
    _job_id: int | None = None

    def submit(self, handoffs: Sequence[Handoff]) -> None:
        """Succeed these dispatches, and what an earlier failure left, then wake the scheduler."""
        queues = tuple({handoff.queue for handoff in handoffs})
        if not queues:
            return
        step = partial(self._succeed, queues=queues, limit=len(handoffs) + _LEFT_BEHIND)
        try:
            if not transact(self._engine, step):
                self._job_id = None  # somebody declared it dead; the next submit joins anew
        except DBAPIError as error:
            log.warning("dispatches wait for the next ones: %s", error.orig)
        self._bell.ring("scheduler")

    def _succeed(self, tx: Tx, queues: tuple[str, ...], limit: int) -> int:
        if self._job_id is None:
            self._job_id = jobs.register(tx, "instant", me(), str(self._config.run_dir))
        claimed = dispatches.claim(tx, self._job_id, queues, limit)
        now = now_us()
        moved = dispatches.start(
            tx, claimed, now=now, hostname=socket.gethostname(), actor=f"instant:{os.getpid()}"
        )
        outcome = msgspec.json.encode(Outcome("success", started_at=now, ended_at=now)).decode()
        dispatches.end_dispatches(tx, self._job_id, dict.fromkeys(moved, outcome))
        return len(claimed)

    def end(self) -> None:
        """Say goodbye, so that nobody takes this for a dead worker."""
        if self._job_id is not None:
            transact(self._engine, partial(jobs.end, job_id=self._job_id))
            self._job_id = None
