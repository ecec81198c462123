"""Parses DAG files in children of the fork server, a few at a time, each within its limits."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

from roost.dag.model import ParsedFile
from roost.scheduler.parsing.folder import file_clock
from roost.scheduler.parsing.server import MAX_RESULT, End, Parse
from roost.support.frames import pack, read_frame, write_frame

__all__ = ["Parsed", "ParserPool", "Past", "failure"]

Past = dict[str, tuple[int, int]]
"""Data interval of the newest scheduled run, by dag_id."""
_RESULT = msgspec.json.Decoder(ParsedFile)


class Parsed(NamedTuple):
    """The result for one file, how long it took in microseconds, and since when it was read, in
    nanoseconds of the file system's clock."""

    path: str
    file: ParsedFile
    took_us: int
    began_ns: int


class _Child:
    """One running parse."""

    def __init__(self, path: str, pid: int, pipe: int, deadline: float, began_ns: int) -> None:
        self.path, self.pid, self.pipe, self.deadline = path, pid, pipe, deadline
        self.began = time.monotonic()
        self.began_ns = began_ns
        self.data = bytearray()


class ParserPool:
    """Owns the fork server; started by the first parse, ended by :meth:`close`.

    Args:
        dags_folder: absolute path of the DAGs folder.
        environ: environment for DAG files, without secrets.
        timeout_s: a file that takes longer is killed (S12).
        memory_bytes: most address space of a child; 0 for no limit.
        width: how many files are parsed at the same time.
    """

    def __init__(
        self,
        dags_folder: str,
        environ: Mapping[str, str],
        *,
        timeout_s: float,
        memory_bytes: int,
        width: int = 2,
    ) -> None:
        self._folder = dags_folder
        self._environ = environ
        self._timeout = timeout_s
        self._memory = memory_bytes
        self._width = width
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def parse(
        self, paths: Iterable[str], past: Mapping[str, Past] | None = None
    ) -> Iterator[Parsed]:
        """Parse files given by absolute path; results come as they are ready.

        Args:
            paths: the files.
            past: by path, what their timetables need to know of the runs there have been.
        """
        past = past or {}
        waiting = list(reversed(list(paths)))
        running: dict[int, _Child] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._width:
                    path = waiting.pop()
                    child = self._start(path, past.get(path, {}))
                    running[child.pipe] = child
                for child in self._ready(running):
                    del running[child.pipe]
                    yield self._finish(child)
        finally:
            for child in running.values():
                self._finish(child)

    def close(self) -> None:
        """End the server. The next parse starts another."""
        server, control = self._server, self._control
        self._server = self._control = None
        if control is not None:
            control.close()
        if server is not None:
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def _start(self, path: str, past: Past) -> _Child:
        control = self._control or self._launch()
        inner, outer = os.pipe()
        began_ns = file_clock()
        try:
            cpu_s = max(1, int(self._timeout) + 1)
            request = Parse(path, self._folder, self._memory, cpu_s, past)
            frame = pack(request)
            sent = socket.send_fds(control, [frame], [outer])
            control.sendall(frame[sent:])
        finally:
            os.close(outer)
        reply = read_frame(control)
        if reply is None:
            os.close(inner)
            self.close()
            raise RuntimeError("the parser's fork server ended; it is started again")
        os.set_blocking(inner, False)
        pid = msgspec.json.decode(reply, type=int)
        return _Child(path, pid, inner, time.monotonic() + self._timeout, began_ns)

    def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "roost.scheduler.parsing.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=self._environ,
            )
        self._control = ours
        return ours

    def _ready(self, running: dict[int, _Child]) -> list[_Child]:
        """Children that are done, gone or out of time."""
        soonest = min(child.deadline for child in running.values())
        poll = select.poll()
        for pipe in running:
            poll.register(pipe, select.POLLIN)
        events = poll.poll(max(0.0, soonest - time.monotonic()) * 1000)
        done = [running[pipe] for pipe, _ in events if self._read(running[pipe])]
        now = time.monotonic()
        return done or [child for child in running.values() if child.deadline <= now][:1]

    @staticmethod
    def _read(child: _Child) -> bool:
        """Take what the pipe has; True when the child has said all, or is gone."""
        data = child.data
        with suppress(BlockingIOError):
            while chunk := os.read(child.pipe, 1 << 20):
                data += chunk
                if len(data) > MAX_RESULT:
                    return True
            return True
        # What the file left behind may hold the pipe open.
        return len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big")

    def _finish(self, child: _Child) -> Parsed:
        os.close(child.pipe)
        if self._control is not None:
            with suppress(OSError):
                write_frame(self._control, End(child.pid))
        took = time.monotonic() - child.began
        return Parsed(child.path, self._result(child), int(took * 1_000_000), child.began_ns)

    def _result(self, child: _Child) -> ParsedFile:
        data = bytes(child.data)
        if len(data) >= 4 and len(data) == 4 + int.from_bytes(data[:4], "big"):
            try:
                return _RESULT.decode(data[4:])
            except msgspec.DecodeError as error:
                return failure(f"the parser gave no valid result: {error}")
        if time.monotonic() >= child.deadline:
            return failure(
                f"the import took longer than {self._timeout:g} s and was killed; move slow work "
                "from the top level into tasks, or raise scheduler.parse_timeout"
            )
        return failure(
            "the import ended its process (os._exit, a crash, or a limit on memory or CPU time); "
            "import the file by itself with `python FILE` to see why"
        )


def failure(error: str) -> ParsedFile:
    """The result for a file that gave none."""
    return ParsedFile(code_hash="", source="", helpers=[], dags=[], triggers=[], error=error)
