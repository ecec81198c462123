"""Keeps templates: makes them when a task needs one, hears them, lets them go.

What happens to tasks is none of its business: it tells its :class:`Listener`.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Collection
from typing import Protocol

from roost.support.osproc import describe_exit
from roost.worker import protocol
from roost.worker.attendant import Attendant
from roost.worker.nursery import Nursery, Template, Version
from roost.worker.reactor import Reactor

__all__ = ["Keeper", "Listener"]

_SECOND = 1_000_000


class Listener(Protocol):
    """Who is told what becomes of processes. All by the dispatch that a process was forked for."""

    def reported(self, report: protocol.Report) -> None:
        """Processes were forked, or have ended, or could not be forked."""

    def refused(self, process_ids: Collection[int], error: str) -> None:
        """Their DAG file cannot be imported: they have no process and never will."""

    def lost(self, process_ids: Collection[int], what: str) -> None:
        """Their processes are gone and nobody saw them end."""


class Keeper:
    """The templates of one worker.

    Args:
        nursery: makes the processes.
        reactor: watches their lines.
        listener: is told.
        load_timeout_us: longest import of a DAG file.
        idle_us: after this long without a task a template, and at last the zygote, is let go.
        max_templates: beyond this number the template that has been idle longest is let go.
    """

    def __init__(
        self,
        nursery: Nursery,
        reactor: Reactor,
        listener: Listener,
        *,
        load_timeout_us: int,
        idle_us: int,
        max_templates: int,
    ) -> None:
        self._nursery = nursery
        self._reactor = reactor
        self._listener = listener
        self._load_timeout_us = load_timeout_us
        self._idle_us = idle_us
        self._max_templates = max_templates

    @property
    def alive(self) -> bool:
        """Whether there is a zygote."""
        return self._nursery.line is not None

    def order(
        self, attendant: Attendant, far_end: socket.socket, version: Version, source: str
    ) -> None:
        """Have a process forked for a task, from a new template if there is none.

        Args:
            attendant: the task's.
            far_end: the process's end of its line; closed here once it is sent.
            version: of the DAG file.
            source: its text.

        Raises:
            OSError: no process or descriptor can be made.
        """
        template = self._nursery.find(version) or self._open(version, source)
        attendant.template = template.number
        template.tasks.add(attendant.spec.dispatch_id)
        self._not_idle(template)
        template.waiting.append((attendant, far_end))
        template.send_waiting()

    def take_back(self, attendant: Attendant) -> bool:
        """Withdraw an order that was not sent yet."""
        template = self._nursery.templates.get(attendant.template)
        return template is not None and template.take_back(attendant)

    def discharge(self, number: int, process_id: int) -> None:
        """A task process has ended; its template may rest.

        Args:
            number: of the template.
            process_id: the dispatch that the process was forked for.
        """
        template = self._nursery.templates.get(number)
        if template is not None:
            template.tasks.discard(process_id)
            self._rest(template)

    def kill_template_of(self, attendant: Attendant) -> None:
        """A template does not reap or fork: kill it, and with it its tasks."""
        template = self._nursery.templates.get(attendant.template)
        if template is not None:
            self._nursery.kill(template)

    def stop(self) -> None:
        """End the zygote and everything below it; what was running is not reported."""
        for template in list(self._nursery.templates.values()):
            self._hear_last_words(template)
            self._retire(template)
        self._stop_zygote()

    def _stop_zygote(self) -> None:
        if self._nursery.line is not None:
            self._reactor.close_socket(self._nursery.line)
        self._nursery.stop_zygote()

    # ------------------------------------------------------------------ making and letting go

    def _open(self, version: Version, source: str) -> Template:
        if self._nursery.line is None:
            self._reactor.watch(self._nursery.start_zygote(), self._hear_zygote)
        self._make_room()
        template = self._nursery.open_template(version, source)
        if template.line is not None:
            self._reactor.watch(template.line, functools.partial(self._hear_template, template))
        self._reactor.after(
            self._load_timeout_us, functools.partial(self._give_up_loading, template)
        )
        return template

    def _make_room(self) -> None:
        idle = [t for t in self._nursery.templates.values() if t.idle is not None]
        idle.sort(key=lambda t: t.idle.due_us if t.idle else 0)
        for template in idle[: max(0, self._nursery.count - self._max_templates + 1)]:
            self._retire(template)

    def _rest(self, template: Template) -> None:
        """Let a template that has nothing to do go after a while."""
        if not template.tasks and template.idle is None and template.state == "ready":
            template.idle = self._reactor.after(
                self._idle_us, functools.partial(self._retire, template)
            )

    def _not_idle(self, template: Template) -> None:
        if template.idle is not None:
            self._reactor.cancel(template.idle)
            template.idle = None

    def _retire(self, template: Template) -> None:
        self._not_idle(template)
        self._close_line(template)
        self._nursery.retire(template)

    def _close_line(self, template: Template) -> None:
        line, template.line = template.line, None
        if line is not None:
            self._reactor.close_socket(line)

    def _give_up_loading(self, template: Template) -> None:
        if template.state == "loading":
            seconds = self._load_timeout_us / _SECOND
            self._refuse(template, f"importing the DAG file took more than {seconds:g} s")
            self._nursery.kill(template)

    def _refuse(self, template: Template, error: str) -> None:
        self._retire(template)
        self._listener.refused(list(template.tasks), error)

    # ------------------------------------------------------------------ hearing

    def _hear_template(self, template: Template) -> bool:
        """Take one packet, if there is one; if there are more, the reactor calls again."""
        if template.line is None:
            return False
        try:
            packet = template.line.recv(protocol.MAX_PACKET)
        except BlockingIOError:
            return False
        except OSError:
            packet = b""
        if not packet:  # it has ended: the zygote will say how
            self._close_line(template)
            return False
        message = protocol.decode_from_template(packet)
        if isinstance(message, protocol.Report):
            self._listener.reported(message)
        elif message.error is not None:
            self._refuse(template, message.error)
            return False
        else:
            template.state = "ready"
        template.send_waiting()
        self._rest(template)
        return True

    def _hear_zygote(self) -> None:
        if self._nursery.line is None:
            return
        try:
            packet = self._nursery.line.recv(protocol.MAX_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._lose_zygote()
            return
        message = protocol.decode_template_gone(packet)
        template = self._nursery.templates.get(message.number)
        if template is not None:
            self._bury(template, message.status)
        if not self._nursery.templates:
            self._reactor.after(self._idle_us, self._stop_idle_zygote)

    def _hear_last_words(self, template: Template) -> None:
        """Take all packets that are left."""
        while self._hear_template(template):
            pass

    def _bury(self, template: Template, status: int) -> None:
        """A template has died, and everything below it is gone already."""
        self._hear_last_words(template)
        loading = template.state == "loading"
        self._retire(template)
        self._nursery.gone(template)
        tasks, ended = list(template.tasks), describe_exit(status)
        if loading:
            self._listener.refused(tasks, f"importing the DAG file {ended}")
        else:
            self._listener.lost(tasks, f"its template process {ended}")

    def _lose_zygote(self) -> None:
        tasks = [id_ for template in self._nursery.templates.values() for id_ in template.tasks]
        self.stop()
        self._listener.lost(tasks, "the process that makes task processes died")

    def _stop_idle_zygote(self) -> None:
        if not self._nursery.templates:
            self._stop_zygote()
