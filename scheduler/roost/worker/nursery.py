"""The supervisor's side of the zygote and the templates: starting, feeding and dropping them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple

from roost.worker import protocol
from roost.worker.attendant import Attendant
from roost.worker.marks import MARK, NO_TASK, TOKEN
from roost.worker.reactor import Timer

__all__ = ["Nursery", "Template", "Version", "task_environ"]


class Version(NamedTuple):
    """One version of one DAG file."""

    fileloc: str
    code_hash: str


class Template:
    """What the supervisor knows of one template.

    Attributes:
        waiting: attendants whose fork order has not been sent.
        tasks: dispatches ordered from it whose processes have not ended.
        idle: the timer that will drop it, while it has none.
    """

    __slots__ = ("idle", "line", "number", "state", "tasks", "version", "waiting")

    def __init__(self, number: int, version: Version, line: socket.socket) -> None:
        self.number = number
        self.version = version
        self.line: socket.socket | None = line
        self.state: Literal["loading", "ready", "closing"] = "loading"
        self.waiting: deque[tuple[Attendant, socket.socket]] = deque()
        self.tasks: set[int] = set()
        self.idle: Timer | None = None

    def send_waiting(self) -> None:
        """Order what waits, as far as the socket takes it; the rest goes with the next report."""
        while self.waiting and self.state == "ready" and self.line is not None:
            attendant, far_end = self.waiting[0]
            order = protocol.encode(protocol.Fork(attendant.spec.dispatch_id, attendant.log_path))
            try:
                socket.send_fds(self.line, [order], [far_end.fileno()])
            except BlockingIOError:
                return
            except OSError:  # it died: the zygote will say so
                return
            self.waiting.popleft()
            far_end.close()

    def take_back(self, attendant: Attendant) -> bool:
        """Withdraw a fork order that was not sent yet."""
        for order in self.waiting:
            if order[0] is attendant:
                self.waiting.remove(order)
                order[1].close()
                return True
        return False

    def close(self) -> None:
        """Withdraw what waits. The owner of the line has closed it, so an idle template ends."""
        self.state = "closing"
        for _attendant, far_end in self.waiting:
            far_end.close()
        self.waiting.clear()


def task_environ(environ: Mapping[str, str], token: str) -> dict[str, str]:
    """The environment of a zygote: the caller's scrubbed one plus the marks.

    Args:
        environ: without secrets (:func:`roost.support.config.without_secrets`).
        token: the supervisor's incarnation.
    """
    dropped = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
    kept = {
        name: value
        for name, value in environ.items()
        if name not in dropped and not name.startswith("ROOST__DATABASE__")
    }
    return kept | {TOKEN: token, MARK: NO_TASK.decode()}


class Nursery:
    """The zygote process and its templates.

    Args:
        setup: what the zygote is told first.
        environ: its whole environment (:func:`task_environ`).
    """

    def __init__(self, setup: protocol.Setup, environ: Mapping[str, str]) -> None:
        self._setup = setup
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._next = 1
        self.line: socket.socket | None = None
        self.templates: dict[int, Template] = {}
        self._current: dict[Version, Template] = {}

    @property
    def count(self) -> int:
        """How many templates are in use or idle."""
        return len(self._current)

    def find(self, version: Version) -> Template | None:
        """The template of a version, loading or ready."""
        return self._current.get(version)

    def start_zygote(self) -> socket.socket:
        """Start the zygote; gives the line to watch.

        Must run in the main thread: the kernel ends the zygote with the *thread* that started it.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            command = (sys.executable, "-P", "-m", "roost.worker.zygote")
            self._process = subprocess.Popen(
                (*command, str(far.fileno()), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                env=self._environ,
                pass_fds=(far.fileno(),),
            )
        near.send(protocol.encode(self._setup))
        near.setblocking(False)
        self.line = near
        return near

    def open_template(self, version: Version, source: str) -> Template:
        """Have the zygote fork a template for ``version``."""
        if self.line is None:
            raise RuntimeError("start the zygote first")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        text = os.memfd_create("dag-source", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(text), "wb") as stream:
                stream.write(source.encode())
            os.lseek(text, 0, os.SEEK_SET)
            template = Template(self._next, version, near)
            self._next += 1
            order = protocol.NewTemplate(template.number, version.fileloc, version.code_hash)
            socket.send_fds(self.line, [protocol.encode(order)], [far.fileno(), text])
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
            os.close(text)
        self.templates[template.number] = template
        self._current[version] = template
        return template

    def retire(self, template: Template) -> None:
        """Close a template that has no tasks; no new task will use it."""
        if self._current.get(template.version) is template:
            del self._current[template.version]
        template.close()

    def kill(self, template: Template) -> None:
        """Have a template that hangs, and its tasks, killed."""
        if self._current.get(template.version) is template:
            del self._current[template.version]
        if self.line is not None:
            self.line.send(protocol.encode(protocol.DropTemplate(template.number)))

    def gone(self, template: Template) -> None:
        """Forget a template that the zygote has reaped."""
        self.retire(template)
        del self.templates[template.number]

    def stop_zygote(self) -> None:
        """Wait for the end of the zygote, which ends all below it; its line is closed already."""
        self.line = None
        for template in list(self.templates.values()):
            self.gone(template)
        if self._process is not None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
