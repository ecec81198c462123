"""The task process: forked from a template for one dispatch, gone when it has said how it ended.

It has its own session and process group, its log file as stdout and stderr, and one line to the
supervisor: the spec comes in on it, requests and the outcome go out. What happens between fork
and exit is the hot path of the whole worker, so it does nothing twice and nothing in vain.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import msgspec

from roost.dag.loader import LoadedFile
from roost.dag.run import run_task
from roost.support.frames import read_frame, write_frame
from roost.support.osproc import die_with_parent, mark_environ
from roost.support.wire import Finished, Reply, Request, TaskSpec
from roost.worker.marks import MARK, task_mark
from roost.worker.tasklog import log_path, redirect

if TYPE_CHECKING:
    from roost.worker.template import Context

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

    def call(self, request: Request) -> Reply:
        """Send one request and wait for its answer. The process ends if the supervisor has."""
        try:
            write_frame(self._sock, request)
            body = read_frame(self._sock)
        except OSError:
            body = None
        if body is None:
            os._exit(1)
        return _decode_reply(body)


def main(sock: socket.socket, parent: int, loaded: LoadedFile, context: Context) -> NoReturn:
    """Run one dispatch and exit; never returns.

    Args:
        sock: this task's line; its spec is the first frame on it.
        parent: pid of the template.
        loaded: the executed DAG file.
        context: what the zygote prepared.
    """
    die_with_parent(parent)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ends us at once until user code may answer
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    body = read_frame(sock)
    if body is None:
        os._exit(1)
    spec = _decode_spec(body)
    mark = task_mark(spec.dispatch_id)
    mark_environ(context.mark_address, mark)
    os.environb[MARK.encode()] = mark
    _to_log(spec, context)
    _reseed()
    gc.enable()
    outcome = run_task(spec, loaded, Line(sock))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the task may have closed them
            stream.flush()
    # Once this is sent the process may be killed at any moment: nothing comes after it.
    with suppress(OSError):
        write_frame(sock, Finished(outcome))
        os._exit(0)
    os._exit(1)


def _to_log(spec: TaskSpec, context: Context) -> None:
    path = log_path(
        context.setup.log_folder,
        spec.dag_id,
        spec.run_id,
        spec.task_id,
        spec.map_index,
        spec.try_number,
    )
    try:
        redirect(path)
    except OSError as error:
        # A full or read-only log disk must not fail the task: its log goes to the worker's.
        sys.stderr.write(f"cannot log to {path} ({error}); the task's output follows here\n")


def _reseed() -> None:
    """Two tasks must not draw the same numbers. ``random`` sees to itself at every fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
