"""A template: one version of one DAG file, executed once, from which its tasks are forked.

It executes the pinned source text under the file's real name, then waits for orders. A task costs
it one fork, one packet in and, at the latest when it has nothing else to do, a part of one packet
out. It is the parent of its tasks: it reaps them, ends their process groups and whatever they
daemonised, and tells the supervisor how they ended. When it ends, its tasks end (PDEATHSIG).
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import NamedTuple, NoReturn

from roost.dag.loader import LoadedFile, load_dag_file
from roost.dag.template import prewarm
from roost.support.logfile import open_log
from roost.support.masking import mask
from roost.support.osproc import adopt_orphans, kill_group, mark_environ
from roost.worker import orphans, protocol, taskproc
from roost.worker.marks import MARK, NO_TASK, task_mark

__all__ = ["Context", "main"]

log = logging.getLogger("roost.worker")
_MARK = MARK.encode()


class Context(NamedTuple):
    """What a zygote hands down to its templates and tasks."""

    setup: protocol.Setup
    mark_address: int  # of the task mark in the initial environment; 0: there is none


def main(order: protocol.NewTemplate, line: socket.socket, source: int, context: Context) -> int:
    """Load the file, then serve until the supervisor closes the line.

    Args:
        order: which file this is.
        line: SEQPACKET socket to the supervisor.
        source: memory file with the text of the DAG file.
        context: what the zygote prepared.
    """
    adopt_orphans()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the file may run commands as it is imported
    with os.fdopen(source, "r", encoding="utf-8", newline="") as stream:
        text = stream.read()
    try:
        loaded = _load(order, text, context)
    except BaseException:
        error = _cut(mask(traceback.format_exc()))
        line.send(protocol.encode(protocol.Loaded(error)))
        return 0
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:])
        log.warning(
            "%s starts threads when it is imported (%s): tasks will run without them",
            order.fileloc,
            names,
        )
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()
    line.send(protocol.encode(protocol.Loaded()))
    return _Template(line, loaded, context).serve()


def _load(order: protocol.NewTemplate, text: str, context: Context) -> LoadedFile:
    folder = context.setup.dags_folder
    loaded = load_dag_file(os.path.join(folder, order.fileloc), text, folder)
    for dag in loaded.dags.values():
        prewarm(dag)
    if loaded.code_hash != order.code_hash:
        log.warning(
            "%s: a helper module has changed since the file was parsed; its tasks run with the "
            "helpers as they are now",
            order.fileloc,
        )
    return loaded


def _cut(text: str) -> str:
    limit = protocol.MAX_PACKET // 4
    return text if len(text) <= limit else f"…{text[-limit:]}"


class _Template:
    def __init__(self, line: socket.socket, loaded: LoadedFile, context: Context) -> None:
        self._line = line
        self._loaded = loaded
        self._context = context
        self._pid = os.getpid()
        self._running: dict[int, int] = {}  # pid -> dispatch id
        self._report = protocol.Report([], [], [])
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> int:
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            self._tell()
            for descriptor, _events in poll.poll():
                if descriptor == self._woken:
                    os.read(self._woken, 4096)
                    self._reap()
                elif not self._take():
                    return 0

    def _take(self) -> bool:
        """Fork for one order; False when the supervisor has closed the line.

        One packet at a time: descriptors still in the socket are in nobody's table, so a task
        inherits no line but its own.
        """
        packet, handles = protocol.receive(self._line, 1)
        if not packet:
            return False
        order = protocol.decode_fork(packet)
        log_file = self._open_log(order.log_path)
        # Done here, where the code is warm, and inherited: it would cost the child much more.
        self._mark(task_mark(order.dispatch_id))
        try:
            pid = os.fork()
        except OSError as error:  # no memory, too many processes: that task's trouble, not ours
            self._report.failed.append((order.dispatch_id, f"it could not be forked: {error}"))
        else:
            if pid == 0:
                self._become_task(handles[0], log_file)
            self._running[pid] = order.dispatch_id
            self._report.forked.append((order.dispatch_id, pid))
        mark_environ(self._context.mark_address, NO_TASK)
        os.close(handles[0])
        if log_file >= 0:
            os.close(log_file)
        return True

    @staticmethod
    def _open_log(path: str) -> int:
        try:
            return open_log(path)
        except OSError as error:
            # A full or read-only log disk must not fail the task: it logs where we do.
            log.error("cannot log to %s (%s): the task's output follows here", path, error)
            return -1

    def _mark(self, mark: bytes) -> None:
        mark_environ(self._context.mark_address, mark)
        os.environb[_MARK] = mark

    def _become_task(self, handle: int, log_file: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            os.close(self._line.detach())
            os.close(self._woken)
            os.close(self._wake)
            most = self._context.setup.most_tasks
            taskproc.main(handle, self._pid, log_file, self._loaded, most)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while self._running:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                break
            if ended.si_pid in self._running:
                # While its leader is not reaped the group's number cannot belong to others.
                kill_group(ended.si_pid)
            pid, status = os.waitpid(ended.si_pid, 0)
            dispatch_id = self._running.pop(pid, None)
            if dispatch_id is not None:
                self._report.exited.append((dispatch_id, status))
        if self._report.exited:
            orphans.sweep(self._running, self._belongs_to_running)

    def _belongs_to_running(self, pid: int) -> bool:
        """True for what a task that still runs has daemonised; whose it is, its mark says."""
        if not self._running:
            return False
        mark = orphans.mark_of(pid, MARK)
        return mark is None or int(mark) in self._running.values()

    def _tell(self) -> None:
        report = self._report
        if report.forked or report.exited or report.failed:
            with suppress(OSError):  # the supervisor has left meanwhile: the next poll says so
                self._line.send(protocol.encode(report))
            self._report = protocol.Report([], [], [])
