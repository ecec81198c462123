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
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from roost.support.osproc import describe_exit
from roost.support.wire import Outcome, Reply, Request, TaskSpec
from roost.worker import protocol
from roost.worker.attendant import Attendant, Why
from roost.worker.leftovers import kill_leftovers
from roost.worker.nursery import Nursery, Template, Version, task_environ
from roost.worker.reactor import Reactor
from roost.worker.tasklog import task_log_path

__all__ = ["Asked", "Ended", "Hub", "HubSettings"]

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
    """

    dags_folder: str
    log_folder: str
    log_level: str = "INFO"
    kill_grace_us: int = 5 * _SECOND
    timeout_slack_us: int = _SECOND
    load_timeout_us: int = 60 * _SECOND
    template_idle_us: int = 60 * _SECOND
    max_templates: int = 16


class Ended(NamedTuple):
    """A dispatch and its outcome."""

    spec: TaskSpec
    outcome: Outcome


class Asked(NamedTuple):
    """A request of a running task."""

    spec: TaskSpec
    request: Request


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
        self._nursery = Nursery(
            protocol.Setup(settings.dags_folder, settings.log_level),
            task_environ(environ, token),
        )
        self._reactor = Reactor()
        self._attendants: dict[int, Attendant] = {}

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

    def start(self, spec: TaskSpec, source: str) -> None:
        """Start a task process for a dispatch. Needs the main thread (see Nursery).

        Its end arrives in :attr:`ended`, whatever happens to it.

        Args:
            spec: the dispatch.
            source: text of its DAG file.
        """
        near, far = socket.socketpair()
        near.setblocking(False)
        attendant = Attendant(spec, near, task_log_path(self._settings.log_folder, spec))
        self._attendants[spec.dispatch_id] = attendant
        self._reactor.watch(near, functools.partial(self._hear_task, attendant))
        if attendant.blocked:
            self._reactor.want_writable(near, True)
        template = self._template_for(Version(spec.fileloc, spec.code_hash), source)
        attendant.template = template.number
        template.tasks.add(spec.dispatch_id)
        if template.idle is not None:
            self._reactor.cancel(template.idle)
            template.idle = None
        template.waiting.append((attendant, far))
        template.send_waiting()

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
        template = self._nursery.templates.get(attendant.template)
        if attendant.pid is not None:
            self._signal(attendant)
        elif template is not None and template.take_back(attendant):
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
        self._lose_zygote("the worker was stopped")
        self._reactor.close()

    # ------------------------------------------------------------------ templates

    def _template_for(self, version: Version, source: str) -> Template:
        template = self._nursery.find(version)
        if template is not None:
            return template
        if self._nursery.line is None:
            self._reactor.watch(self._nursery.start_zygote(), self._hear_zygote)
        self._make_room()
        template = self._nursery.open_template(version, source)
        if template.line is not None:
            self._reactor.watch(template.line, functools.partial(self._hear_template, template))
        self._reactor.after(
            self._settings.load_timeout_us, functools.partial(self._give_up_loading, template)
        )
        return template

    def _make_room(self) -> None:
        idle = [t for t in self._nursery.templates.values() if t.idle is not None]
        spare = self._nursery.count - self._settings.max_templates + 1
        idle.sort(key=lambda t: t.idle.due_us if t.idle else 0)
        for template in idle[: max(0, spare)]:
            self._retire(template)

    def _retire(self, template: Template) -> None:
        if template.idle is not None:
            self._reactor.cancel(template.idle)
            template.idle = None
        if template.line is not None:
            self._reactor.forget(template.line)
        self._nursery.retire(template)

    def _give_up_loading(self, template: Template) -> None:
        if template.state == "loading":
            seconds = self._settings.load_timeout_us / _SECOND
            self._refuse(template, f"importing the DAG file took more than {seconds:g} s")
            self._nursery.kill(template)

    def _refuse(self, template: Template, error: str) -> None:
        """Fail all that waits for a template whose DAG file cannot be imported."""
        self._retire(template)
        for dispatch_id in list(template.tasks):
            attendant = self._attendants[dispatch_id]
            self._finish(attendant, attendant.refusal(error))

    def _hear_template(self, template: Template) -> None:
        while template.line is not None:
            try:
                packet = template.line.recv(protocol.MAX_PACKET)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if not packet:  # it has ended: the zygote will say how
                self._reactor.forget(template.line)
                return
            message = protocol.decode_from_template(packet)
            if isinstance(message, protocol.Report):
                self._take_report(message)
            elif message.error is not None:
                self._refuse(template, message.error)
                return
            else:
                template.state = "ready"
            template.send_waiting()
        self._rest(template)

    def _rest(self, template: Template) -> None:
        """Let a template that has nothing to do go after a while."""
        if not template.tasks and template.idle is None and template.state == "ready":
            template.idle = self._reactor.after(
                self._settings.template_idle_us, functools.partial(self._retire, template)
            )

    def _take_report(self, report: protocol.Report) -> None:
        for dispatch_id, pid in report.forked:
            attendant = self._attendants.get(dispatch_id)
            if attendant is None:
                continue
            attendant.forked(pid)
            if attendant.why is not None:
                self._signal(attendant)
            elif (limit := attendant.spec.execution_timeout_us) is not None:
                left = max(0, limit - attendant.spec.run_us) + self._settings.timeout_slack_us
                self._arm(attendant, left, self._time_out)
        for dispatch_id, error in report.failed:
            attendant = self._attendants.get(dispatch_id)
            if attendant is not None:
                self._finish(attendant, attendant.final_outcome(None, error))
        for dispatch_id, status in report.exited:
            attendant = self._attendants.get(dispatch_id)
            if attendant is not None:
                # What it said last may still be in its line.
                self._hear_task(attendant)
                self._finish(attendant, attendant.final_outcome(status))

    # ------------------------------------------------------------------ the zygote

    def _hear_zygote(self) -> None:
        while (line := self._nursery.line) is not None:
            try:
                packet = line.recv(protocol.MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lose_zygote("the process that makes task processes died")
                return
            message = protocol.decode_template_gone(packet)
            template = self._nursery.templates.get(message.number)
            if template is None:
                continue
            if template.line is not None:  # what it said last may still be in its line
                self._hear_template(template)
            self._bury(template, message.status)
            self._retire(template)
            self._nursery.gone(template)
            if not self._nursery.templates:
                self._reactor.after(self._settings.template_idle_us, self._stop_idle_zygote)

    def _bury(self, template: Template, status: int) -> None:
        """End the dispatches of a template that died; its processes are gone already."""
        ended = describe_exit(status)
        for dispatch_id in list(template.tasks):
            attendant = self._attendants[dispatch_id]
            self._hear_task(attendant)
            if template.state == "loading":
                outcome = attendant.refusal(f"importing the DAG file {ended}")
            else:
                outcome = attendant.final_outcome(None, f"its template process {ended}")
            self._finish(attendant, outcome)

    def _stop_idle_zygote(self) -> None:
        if not self._nursery.templates and self._nursery.line is not None:
            self._reactor.forget(self._nursery.line)
            self._nursery.stop_zygote()

    def _lose_zygote(self, what: str) -> None:
        """End everything below, the zygote included."""
        for template in list(self._nursery.templates.values()):
            if template.line is not None:
                self._hear_template(template)
            self._retire(template)
        if self._nursery.line is not None:
            self._reactor.forget(self._nursery.line)
        self._nursery.stop_zygote()
        kill_leftovers(self._token)
        for attendant in list(self._attendants.values()):
            self._hear_task(attendant)
            self._finish(attendant, attendant.final_outcome(None, what))

    # ------------------------------------------------------------------ tasks

    def _hear_task(self, attendant: Attendant) -> None:
        line = attendant.line
        if line is None:
            return
        for request in attendant.receive():
            self.asked.append(Asked(attendant.spec, request))
        if attendant.at_end:
            self._reactor.forget(line)
            attendant.close()
        elif attendant.blocked:
            attendant.flush()
            if not attendant.blocked:
                self._reactor.want_writable(line, False)
        if attendant.outcome is None:
            return
        # It has said its last word and must end now.
        self._arm(attendant, self._settings.kill_grace_us, self._kill)
        outcome = attendant.early_outcome()
        if outcome is not None:
            self._settle(attendant, outcome)

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
        if attendant.timer is not None:
            self._reactor.cancel(attendant.timer)
        if attendant.line is not None:
            self._reactor.forget(attendant.line)
            attendant.close()
        del self._attendants[attendant.spec.dispatch_id]
        template = self._nursery.templates.get(attendant.template)
        if template is not None:
            template.tasks.discard(attendant.spec.dispatch_id)

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
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(attendant.pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(attendant.pid, signal.SIGKILL)
            self._arm(attendant, self._settings.kill_grace_us, self._kill_template)

    def _kill_template(self, dispatch_id: int) -> None:
        """A killed task was not reaped in time: its template hangs."""
        attendant = self._attendants.get(dispatch_id)
        template = self._nursery.templates.get(attendant.template) if attendant else None
        if template is not None:
            self._nursery.kill(template)
