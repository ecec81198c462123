"""The task process: forked from a template for one dispatch, gone when it has said how it ended.

Where ``worker.isolation`` lets processes be reused it may stay, and wait for another dispatch.

It has its own session and process group, its log file as stdout and stderr, and one line to the
supervisor: the spec comes in on it, requests and the outcome go out. What happens between fork
and exit is the hot path of the whole worker, so it does nothing twice and nothing in vain.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal
import gc
import logging
import os
import sys
import threading
from typing import NoReturn

import msgspec

from roost.dag.loader import LoadedFile
from roost.dag.run import run_task
from roost.exceptions import RoostException
from roost.support.clock import now_us
from roost.support.frames import pack
from roost.support.logfile import open_log
from roost.support.osproc import die_with_parent
from roost.support.task_requests import Finished, Reply, Request
from roost.support.wire import Outcome, TaskSpec
from roost.worker import protocol
from roost.worker.identity import become
from roost.worker.stay import Stay
from roost.worker.tasklog import release_streams

__all__ = ["Line", "main", "work"]

log = logging.getLogger("roost.task")
_decode_spec = msgspec.json.Decoder(TaskSpec).decode
_decode_reply = msgspec.json.Decoder(Reply).decode


class Line:
    """The task's side of its line: the ``Supervisor`` that the authoring API talks to.

    A bare descriptor: making a socket object of it costs a young process dearly.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._turn = threading.Lock()  # a task may ask from several threads

    def call(self, request: Request) -> Reply:
        """Send one request and wait for its answer. The process ends if the supervisor has."""
        try:
            with self._turn:
                self.write(request)
                body = self.read()
        except OSError:
            os._exit(1)
        return _decode_reply(body)

    def write(self, message: object) -> None:
        """Send one frame."""
        data = pack(message)
        while data:
            data = data[os.write(self._handle, data) :]

    def read(self) -> bytes:
        """The body of the next frame. The process ends if the supervisor has."""
        head = self._exactly(4)
        return self._exactly(int.from_bytes(head, "big"))

    def _exactly(self, count: int) -> bytes:
        data = os.read(self._handle, count)
        while len(data) < count:
            more = os.read(self._handle, count - len(data))
            if not more:
                os._exit(1)
            data += more
        return data


def main(handle: int, parent: int, log: int, loaded: LoadedFile, most: int = 1) -> NoReturn:
    """Run one dispatch, or several one after the other, and exit; never returns.

    Args:
        handle: descriptor of this task's line; its spec is the first frame on it.
        parent: pid of the template.
        log: descriptor of the log file; -1: there is none, output goes to the worker's log.
        loaded: the executed DAG file.
        most: dispatches that it may run.
    """
    die_with_parent(parent)
    os.setsid()
    # The functions of the C module: those of ``signal`` wrap every handler into an enumeration,
    # which costs a process that is this young more than all system calls of its start.
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)  # ends it until user code may answer
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    if log >= 0:
        _write_to(log)
    _reseed()
    gc.enable()
    line = Line(handle)
    stay = Stay(most) if most > 1 else None
    try:
        stays = work(line, loaded, parent, stay)
        while stays:
            # It ends here, where its supervisor closes the line.
            order = protocol.decode_next_task(line.read())
            _log_to(order.log_path)
            stays = _work(order.spec, line, loaded, parent, stay)
    except OSError:
        os._exit(1)
    # Once the outcome is sent the process may be killed at any moment: nothing comes after it.
    os._exit(0)


def work(line: Line, loaded: LoadedFile, parent: int = 0, stay: Stay | None = None) -> bool:
    """Take the spec from the line, run the task and send its outcome.

    Args:
        line: to the supervisor.
        loaded: the executed DAG file.
        parent: pid of the template.
        stay: decides whether this process may run another; None: it may not.

    Returns:
        Whether it may.

    Raises:
        OSError: nobody takes the outcome.
    """
    return _work(_decode_spec(line.read()), line, loaded, parent, stay)


def _work(spec: TaskSpec, line: Line, loaded: LoadedFile, parent: int, stay: Stay | None) -> bool:
    outcome = None if spec.run_as_user is None else _become(spec, parent)
    if outcome is None:
        outcome = run_task(spec, loaded, line)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # the task may have closed them
        pass
    release_streams()
    stays = stay is not None and stay.allows(spec, outcome)
    line.write(Finished(outcome, stays))
    return stays


def _log_to(path: str) -> None:
    """Have standard output and error go to the log file of the next task."""
    try:
        handle = open_log(path)
    except OSError as error:
        # As in a template: a full disk must not fail the task. The log of the last one is not its.
        handle = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        log.error("cannot log to %s (%s): the output of the next task is lost", path, error)
    _write_to(handle)


def _write_to(handle: int) -> None:
    """Have standard output and error go to what is open here, which is not needed any more."""
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _become(spec: TaskSpec, parent: int) -> Outcome | None:
    """Switch to the task's user; the outcome, where that cannot be."""
    try:
        become(spec.run_as_user or "", parent)
    except RoostException as error:
        text = f"task {spec.task_id!r}: {error}"
        log.error(text)
        now = now_us()
        return Outcome("failed", started_at=now, ended_at=now, error=text)
    return None


def _reseed() -> None:
    """Two tasks must not draw the same numbers. ``random`` sees to itself at every fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
