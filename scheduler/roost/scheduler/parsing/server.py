"""The parser's fork server: imports the authoring layer once, then forks a child per DAG file.

Run as ``python -m roost.scheduler.parsing.server FD``. The process itself never imports a DAG
file and has neither database nor credentials. Each child has its own session, limits on memory,
CPU time, file size and open files, imports ONE file, writes the result to a pipe and ends. The
server kills what is left of it and only then reaps it, so a pid is never signalled after reuse;
it is a subreaper, so that what detached itself from the child is found too.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys

import msgspec

from roost.dag.model import ParsedFile
from roost.dag.parse import parse_dag_file
from roost.support import osproc
from roost.support.frames import pack, write_frame
from roost.worker.orphans import sweep

__all__ = ["End", "Parse", "Request", "main"]

MAX_RESULT = 16 * 1024 * 1024


class Parse(msgspec.Struct, tag="parse"):
    """Import the file at ``path`` and write the result to the pipe that comes with this frame."""

    path: str
    dags_folder: str
    memory_bytes: int
    cpu_s: int
    # Data interval of the newest scheduled run, of DAGs with a timetable of the user's own.
    past: dict[str, tuple[int, int]] = {}


class End(msgspec.Struct, tag="end"):
    """Kill whatever is left of a child and reap it."""

    pid: int


Request = Parse | End
_REQUEST = msgspec.json.Decoder(Request)


def main(fd: int) -> None:
    """Serve requests until the scheduler closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    osproc.adopt_orphans()
    running: set[int] = set()
    gc.collect()
    gc.freeze()
    pipes: list[int] = []
    while (frame := _next(control, pipes)) is not None:
        request = _REQUEST.decode(frame)
        if isinstance(request, End):
            running.discard(request.pid)
            _end(request.pid, running)
            continue
        pipe = pipes.pop()
        pid = os.fork()
        if pid == 0:
            control.close()
            _child(request, pipe)
        os.close(pipe)
        running.add(pid)
        write_frame(control, pid)


def _next(control: socket.socket, pipes: list[int]) -> bytes | None:
    """The next frame; a pipe sent along with its first bytes is added to ``pipes``."""
    head, fds, _flags, _address = socket.recv_fds(control, 4, 1)
    pipes += fds
    if len(head) < 4:
        return None
    length = int.from_bytes(head, "big")
    body = bytearray()
    while len(body) < length:
        chunk = control.recv(length - len(body))
        if not chunk:
            return None
        body += chunk
    return bytes(body)


def _end(pid: int, running: set[int]) -> None:
    for target in (os.killpg, os.kill):
        try:
            target(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.waitpid(pid, 0)
    sweep(running, lambda _pid: False)


def _child(request: Parse, pipe: int) -> None:
    """Import the file and report. Never returns."""
    status = 1
    try:
        os.setsid()
        osproc.die_with_parent(os.getppid())
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        _limit(request)
        result = parse_dag_file(request.path, request.dags_folder, request.past)
        try:
            frame = pack(result)
        except UnicodeEncodeError as error:
            frame = pack(_failed(f"a text of the file is not valid Unicode: {error.reason}"))
        if len(frame) > MAX_RESULT:
            frame = pack(_failed(f"the file's DAGs are {len(frame)} bytes as JSON; at most 16 MiB"))
        with os.fdopen(pipe, "wb", buffering=0) as out:
            view = memoryview(frame)
            while view:
                view = view[out.write(view) or 0 :]
        status = 0
    finally:
        os._exit(status)


def _failed(error: str) -> ParsedFile:
    return ParsedFile(code_hash="", source="", helpers=[], dags=[], triggers=[], error=error)


def _limit(request: Parse) -> None:
    limits = {
        resource.RLIMIT_CPU: request.cpu_s,
        resource.RLIMIT_FSIZE: 64 * 1024 * 1024,
        resource.RLIMIT_NOFILE: 1024,
        resource.RLIMIT_CORE: 0,
    }
    if request.memory_bytes:
        limits[resource.RLIMIT_AS] = request.memory_bytes
    for kind, value in limits.items():
        _soft, hard = resource.getrlimit(kind)
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (capped, capped))


if __name__ == "__main__":
    main(int(sys.argv[1]))
