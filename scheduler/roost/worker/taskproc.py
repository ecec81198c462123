"""The task process: forked from a template for one dispatch, gone when it has said how it ended.

It has its own session and process group, its log file as stdout and stderr, and one line to the
supervisor: the spec comes in on it, requests and the outcome go out. What happens between fork
and exit is the hot path of the whole worker, so it does nothing twice and nothing in vain.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal
import gc
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import NoReturn

import msgspec

from roost.dag.loader import LoadedFile
from roost.dag.run import run_task
from roost.support.frames import read_frame, write_frame
from roost.support.osproc import die_with_parent
from roost.support.wire import Finished, Reply, Request, TaskSpec

__all__ = ["kill_group", "main"]

_decode_spec = msgspec.json.Decoder(TaskSpec).decode
_decode_reply = msgspec.json.Decoder(Reply).decode


def kill_group(pid: int) -> None:
    """SIGKILL the process group that ``pid`` leads, if there still is one."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class Line:
    """The task's side of its line: the ``Supervisor`` that the authoring API talks to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._turn = threading.Lock()  # a task may ask from several threads

    def call(self, request: Request) -> Reply:
        """Send one request and wait for its answer. The process ends if the supervisor has."""
        try:
            with self._turn:
                write_frame(self._sock, request)
                body = read_frame(self._sock)
        except OSError:
            body = None
        if body is None:
            os._exit(1)
        return _decode_reply(body)


def main(sock: socket.socket, parent: int, log: int, loaded: LoadedFile) -> NoReturn:
    """Run one dispatch and exit; never returns.

    Args:
        sock: this task's line; its spec is the first frame on it.
        parent: pid of the template.
        log: descriptor of the log file; -1: there is none, output goes to the worker's log.
        loaded: the executed DAG file.
    """
    die_with_parent(parent)
    os.setsid()
    # The functions of the C module: those of ``signal`` wrap every handler into an enumeration,
    # which costs a process that is this young more than all system calls of its start.
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)  # ends it until user code may answer
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    if log >= 0:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    body = read_frame(sock)
    if body is None:
        os._exit(1)
    spec = _decode_spec(body)
    _reseed()
    gc.enable()
    outcome = run_task(spec, loaded, Line(sock))
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # the task may have closed them
        pass
    # Once this is sent the process may be killed at any moment: nothing comes after it.
    try:
        write_frame(sock, Finished(outcome))
    except OSError:
        os._exit(1)
    os._exit(0)


def _reseed() -> None:
    """Two tasks must not draw the same numbers. ``random`` sees to itself at every fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
