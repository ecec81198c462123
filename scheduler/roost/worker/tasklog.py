"""How a task process writes to its log file; where that is: :mod:`roost.support.logfile`."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from roost.support import masking
from roost.support.logfile import FORMAT, Stamped, log_path, run_log_path
from roost.support.wire import TaskSpec

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["prepare_streams", "release_streams", "task_log_path"]


def task_log_path(folder: str, spec: TaskSpec) -> str:
    """The log file of one dispatch. What concerns a whole run has one log for it: ``dag.log``."""
    if spec.callback is not None and spec.callback.kind != "task":
        return run_log_path(folder, spec.dag_id, spec.run_id)
    return log_path(folder, spec.dag_id, spec.run_id, spec.task_id, spec.map_index, spec.try_number)


class _LogFile(io.FileIO):
    """A descriptor whose writes never raise: a full log disk must not fail the task.

    Secrets that this process has been given are hidden on their way through it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._filter = masking.Filter()

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        try:
            if not masking.is_active():
                return super().write(data) or 0
            self._write_all(self._filter.feed(bytes(data)))
        except OSError:
            pass
        return size

    def release(self) -> None:
        """Write what was held back because a secret could have begun there."""
        with suppress(OSError):
            self._write_all(self._filter.rest())

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[super().write(data) or len(data) :]


_files: list[_LogFile] = []


def release_streams() -> None:
    """Write the last of what this process's streams hold; to be called before it exits."""
    if masking.is_active():
        for file in _files:
            file.release()


def prepare_streams(level: str) -> None:
    """Set up ``sys.stdout``, ``sys.stderr`` and logging once, before any task is forked.

    They write to descriptors 1 and 2 line by line; a task process only puts its log file there.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = _LogFile(number)
        _files.append(file)
        raw = io.BufferedWriter(file)
        setattr(
            sys,
            name,
            io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True),
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Stamped(FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
