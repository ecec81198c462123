"""The worker's core: starts tasks, hears them, ends them. Synchronous, and free of any database.

One epoll descriptor stands for everything a worker waits for: the zygote's line, a line for each
template, a line for each task. Whoever drives the hub waits until :meth:`Hub.fileno` is readable
or :attr:`Hub.next_due_us` has come, and calls :meth:`Hub.turn`; no thread and no coroutine
belongs to a task. What the hub hears it puts on two lists for its driver:

``ended``
    dispatches that have an outcome, to be stored;
``asked``
    requests of tasks, to be answered with :meth:`Hub.reply`.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

from roost.support.frames import MAX_FRAME
from roost.support.osproc import kill_group
from roost.support.task_requests import Reply
from roost.support.wire import Outcome, TaskSpec
from roost.worker import protocol
from roost.worker.attendant import Asked, Attendant, Ended, Why
from roost.worker.keeper import Keeper
from roost.worker.leftovers import kill_leftovers
from roost.worker.nursery import Nursery, Version, task_environ
from roost.worker.reactor import Reactor
from roost.worker.resting import Process, Resting
from roost.worker.stay import may_share
from roost.worker.tasklog import task_log_path

__all__ = ["Hub", "HubSettings"]

log = logging.getLogger("roost.worker")
_SECOND = 1_000_000


class HubSettings(NamedTuple):
    """How a hub treats its processes. Durations are microseconds.

    Attributes:
        dags_folder: absolute.
        log_folder: absolute; of the tasks' logs.
        log_level: of the tasks' loggers.
        kill_grace_us: from SIGTERM to SIGKILL.
        timeout_slack_us: how long after ``execution_timeout`` the supervisor lets the task end
            itself before it sends SIGTERM.
        load_timeout_us: longest import of a DAG file.
        template_idle_us: after this long without a task a template is dropped.
        max_templates: beyond this number the template that has been idle longest is dropped.
        max_frame: most bytes of one message of a task.
        most_tasks: that one process runs; 1: each task has a process of its own.
        rest_us: after this long without a task a process that may run another ends.
    """

    dags_folder: str
    log_folder: str
    log_level: str = "INFO"
    kill_grace_us: int = 5 * _SECOND
    timeout_slack_us: int = _SECOND
    load_timeout_us: int = 60 * _SECOND
    template_idle_us: int = 60 * _SECOND
    max_templates: int = 128
    max_frame: int = MAX_FRAME
    most_tasks: int = 1
    rest_us: int = 10 * _SECOND


class Hub:
    """All processes of one worker.

    Args:
        settings: see :class:`HubSettings`.
        token: mark of this worker's incarnation, for everything it starts.
        environ: environment for tasks, without secrets.
    """

    def __init__(self, settings: HubSettings, token: str, environ: Mapping[str, str]) -> None:
        self.ended: list[Ended] = []
        self.asked: list[Asked] = []
        self._settings = settings
        self._token = token
        self._reactor = Reactor()
        setup = protocol.Setup(settings.dags_folder, settings.log_level, settings.most_tasks)
        self._keeper = Keeper(
            Nursery(setup, task_environ(environ, token)),
            self._reactor,
            self,
            load_timeout_us=settings.load_timeout_us,
            idle_us=settings.template_idle_us,
            max_templates=settings.max_templates,
        )
        self._attendants: dict[int, Attendant] = {}
        self._resting = Resting(self._reactor, settings.rest_us)
        # Processes that stayed after their first dispatch, and what those run that do not rest.
        self._stayed: dict[int, Process] = {}
        self._at_work: dict[int, int] = {}

    # ------------------------------------------------------------------ for the driver

    def fileno(self) -> int:
        """Readable when :meth:`turn` has something to do."""
        return self._reactor.fileno()

    @property
    def next_due_us(self) -> int | None:
        """Boot time in microseconds by which :meth:`turn` is to be called anyway."""
        return self._reactor.next_due_us

    @property
    def running(self) -> int:
        """Dispatches whose processes have not ended, those still being started included."""
        return len(self._attendants)

    @property
    def dispatch_ids(self) -> list[int]:
        """The dispatches whose outcome is still to come."""
        return [id_ for id_, attendant in self._attendants.items() if not attendant.settled]

    def start(self, spec: TaskSpec, source: str) -> bool:
        """Start a task process for a dispatch. Needs the main thread (see Nursery).

        Its end arrives in :attr:`ended`, whatever happens to it.

        Args:
            spec: the dispatch.
            source: text of its DAG file.

        Returns:
            False when this host cannot start processes now; the dispatch is lost.
        """
        version = Version(spec.fileloc, spec.code_hash)
        log_path = task_log_path(self._settings.log_folder, spec)
        if may_share(spec) and (process := self._resting.take(version)) is not None:
            self._give(process, spec, log_path)
            return True
        near, far = socket.socketpair()
        near.setblocking(False)
        attendant = Attendant(spec, near, log_path, self._settings.max_frame)
        self._attendants[spec.dispatch_id] = attendant
        self._reactor.watch(near, functools.partial(self._hear_task, attendant))
        if attendant.blocked:
            self._reactor.want_writable(near, True)
        try:
            self._keeper.order(attendant, far, version, source)
        except OSError as error:
            far.close()
            self.lost([spec.dispatch_id], f"the worker cannot start processes: {error}")
            return False
        return True

    def reply(self, dispatch_id: int, reply: Reply) -> None:
        """Answer a task's request; nothing happens when the task has ended meanwhile."""
        attendant = self._attendants.get(dispatch_id)
        if attendant is not None and attendant.line is not None:
            attendant.send(reply)
            if attendant.blocked:
                self._reactor.want_writable(attendant.line, True)

    def terminate(self, dispatch_id: int, why: Why) -> None:
        """End a task: SIGTERM, and after the grace period SIGKILL to its whole group."""
        attendant = self._attendants.get(dispatch_id)
        if attendant is None or attendant.why is not None:
            return
        attendant.why = why
        if attendant.pid is not None:
            self._signal(attendant)
        elif self._keeper.take_back(attendant):
            self._finish(attendant, attendant.final_outcome(None, "it was not started yet"))
        else:  # ordered, and not reported as forked
            self._arm(attendant, self._settings.kill_grace_us, self._kill_template)

    def kill(self, dispatch_id: int, why: Why) -> None:
        """End a task at once, without SIGTERM first."""
        attendant = self._attendants.get(dispatch_id)
        if attendant is not None:
            self.terminate(dispatch_id, why)
            self._kill(dispatch_id)

    def turn(self) -> None:
        """Handle everything that is ready, and everything that is due; never waits."""
        self._reactor.turn()

    def close(self) -> None:
        """End every process below this hub at once and close all descriptors."""
        self._keeper.stop()
        kill_leftovers(self._token)
        processes = [attendant.process_id for attendant in self._attendants.values()]
        self.lost(processes, "the worker was stopped")
        self._resting.close()
        self._reactor.close()

    # ------------------------------------------------------------------ told by the keeper

    def reported(self, report: protocol.Report) -> None:
        """Processes were forked, or have ended, or could not be forked."""
        for dispatch_id, pid in report.forked:
            attendant = self._attendants.get(dispatch_id)
            if attendant is None:
                continue
            self._begin(attendant, pid)
        for dispatch_id, error in report.failed:
            self.lost([dispatch_id], error)
        for process_id, status in report.exited:
            attendant = self._attendant_of(process_id)
            if attendant is None:  # it rested, or was let go
                self._forget_process(process_id)
                continue
            self._hear_task(attendant, ended=True)  # what it said last may still be in its line
            self._finish(attendant, attendant.final_outcome(status))

    def _begin(self, attendant: Attendant, pid: int) -> None:
        """The process of a dispatch is known, and it may run for so long."""
        attendant.forked(pid)
        if attendant.why is not None:
            self._signal(attendant)
        elif attendant.fault:
            self._arm(attendant, 0, self._kill)
        elif (limit := attendant.spec.execution_timeout_us) is not None:
            left = max(0, limit - attendant.spec.run_us) + self._settings.timeout_slack_us
            self._arm(attendant, left, self._time_out)
        if attendant.stays:  # it was quicker than the news of it
            self._hear_task(attendant)

    def refused(self, process_ids: Collection[int], error: str) -> None:
        """Their DAG file cannot be imported."""
        for attendant in self._of(process_ids):
            self._finish(attendant, attendant.refusal(error))

    def lost(self, process_ids: Collection[int], what: str) -> None:
        """Their processes are gone and nobody saw them end."""
        attendants = self._of(process_ids)
        # PDEATHSIG has ended the tasks, not what they had started.
        if any(attendant.pid is not None for attendant in attendants) and not self._keeper.alive:
            kill_leftovers(self._token)
        for attendant in attendants:
            self._hear_task(attendant, ended=True)
            self._finish(attendant, attendant.final_outcome(None, what))
        for process_id in process_ids:
            self._forget_process(process_id)

    def _of(self, process_ids: Collection[int]) -> list[Attendant]:
        found = [self._attendant_of(process_id) for process_id in process_ids]
        return [attendant for attendant in found if attendant is not None]

    def _attendant_of(self, process_id: int) -> Attendant | None:
        """Of what runs in a process, which has the id of its first dispatch."""
        return self._attendants.get(self._at_work.get(process_id, process_id))

    def _forget_process(self, process_id: int, template: int | None = None) -> None:
        """A process has ended; of one that stayed its template is known here."""
        self._at_work.pop(process_id, None)
        process = self._stayed.pop(process_id, None)
        if process is not None:
            self._resting.drop(process)
            template = process.template
        if template is not None:
            self._keeper.discharge(template, process_id)

    # ------------------------------------------------------------------ processes that stay

    def _give(self, process: Process, spec: TaskSpec, log_path: str) -> None:
        """Have a process that rests run another dispatch."""
        limit, process_id = self._settings.max_frame, process.process_id
        attendant = Attendant(spec, process.line, log_path, limit, process_id=process_id)
        attendant.template = process.template
        self._attendants[spec.dispatch_id] = attendant
        self._at_work[process_id] = spec.dispatch_id
        self._reactor.rewatch(process.line, functools.partial(self._hear_task, attendant))
        self._reactor.want_writable(process.line, attendant.blocked)
        self._begin(attendant, process.pid)

    def _rest(self, attendant: Attendant, pid: int, line: socket.socket) -> None:
        """A dispatch has ended, and its process waits for the next one."""
        attendant.line = None
        self._take_out(attendant)
        version = Version(attendant.spec.fileloc, attendant.spec.code_hash)
        process = Process(attendant.process_id, attendant.template, version, pid, line)
        self._at_work.pop(process.process_id, None)
        self._stayed[process.process_id] = process
        self._resting.put(process)

    # ------------------------------------------------------------------ tasks

    def _hear_task(self, attendant: Attendant, *, ended: bool = False) -> None:
        """Take what a task sent; ``ended``: its process is known to be gone."""
        line = attendant.line
        if line is None:
            return
        for request in attendant.receive():
            self.asked.append(Asked(attendant.spec, request))
        outcome = attendant.early_outcome()
        if outcome is not None:
            self._settle(attendant, outcome)
            if attendant.may_stay() and not ended:
                if attendant.pid is not None:  # else its template says so in a moment
                    self._rest(attendant, attendant.pid, line)
                return
        if attendant.at_end or attendant.outcome is not None:
            attendant.line = None
            self._reactor.close_socket(line)
        elif attendant.blocked:
            attendant.flush()
            if not attendant.blocked:
                self._reactor.want_writable(line, False)
        self._wait_for_end(attendant)

    def _wait_for_end(self, attendant: Attendant) -> None:
        """See to it that a task ends that has said its last word, or is not heard any more."""
        if attendant.outcome is not None:
            self._arm(attendant, self._settings.kill_grace_us, self._kill)
        elif attendant.fault:
            self._arm(attendant, 0, self._kill)

    def _arm(self, attendant: Attendant, delay_us: int, step: Callable[[int], None]) -> None:
        """Set the one timer of a task: what happens to it if it does not end by itself."""
        if attendant.timer is not None:
            self._reactor.cancel(attendant.timer)
        call = functools.partial(step, attendant.spec.dispatch_id)
        attendant.timer = self._reactor.after(delay_us, call)

    def _time_out(self, dispatch_id: int) -> None:
        self.terminate(dispatch_id, "timeout")

    def _settle(self, attendant: Attendant, outcome: Outcome) -> None:
        if not attendant.settled:
            attendant.settled = True
            if attendant.why != "revoked":  # nobody wants to hear of those
                self.ended.append(Ended(attendant.spec, outcome))

    def _finish(self, attendant: Attendant, outcome: Outcome) -> None:
        """The process of a dispatch is gone, or never was."""
        self._settle(attendant, outcome)
        if attendant.line is not None:
            self._reactor.close_socket(attendant.line)
            attendant.line = None
        self._take_out(attendant)
        self._forget_process(attendant.process_id, attendant.template)

    def _take_out(self, attendant: Attendant) -> None:
        """Nothing is to be done for a dispatch any more."""
        if attendant.timer is not None:
            self._reactor.cancel(attendant.timer)
        del self._attendants[attendant.spec.dispatch_id]

    def _signal(self, attendant: Attendant) -> None:
        """SIGTERM for the task alone: its ``on_kill`` knows best how to end its children."""
        if attendant.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(attendant.pid, signal.SIGTERM)
        self._arm(attendant, self._settings.kill_grace_us, self._kill)

    def _kill(self, dispatch_id: int) -> None:
        """SIGKILL for the whole group; its template kills what has left the group."""
        attendant = self._attendants.get(dispatch_id)
        if attendant is not None and attendant.pid is not None:
            kill_group(attendant.pid)
            with suppress(ProcessLookupError):
                os.kill(attendant.pid, signal.SIGKILL)
            self._arm(attendant, self._settings.kill_grace_us, self._kill_template)

    def _kill_template(self, dispatch_id: int) -> None:
        """A killed task was not reaped in time: its template hangs."""
        attendant = self._attendants.get(dispatch_id)
        if attendant is not None:
            self._keeper.kill_template_of(attendant)
