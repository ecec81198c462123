"""Where a task's log file is, and how a task process writes to it.

``<folder>/dag_id=…/run_id=…/task_id=…/[map_index=…/]attempt=N.log``. A resume after a deferral
appends to the file of its try.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from roost.support import masking
from roost.support.wire import TaskSpec

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["log_path", "open_log", "prepare_streams", "release_streams", "task_log_path"]

_PLAIN = re.compile(r"[\w.:+~@ -]{1,200}", re.ASCII)
_FORMAT = "[%(asctime)s] {%(filename)s:%(lineno)d} %(levelname)s - %(message)s"


def _part(value: str) -> str:
    """An id as part of a file name: everything unusual percent-encoded, at most 240 bytes."""
    if _PLAIN.fullmatch(value):
        return value
    quoted = "".join(
        char if _PLAIN.fullmatch(char) else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in value
    )
    if len(quoted) <= 240:
        return quoted
    import hashlib  # only ids of extraordinary length pay for it

    return f"{quoted[:200]}%{hashlib.sha256(value.encode()).hexdigest()[:16]}"


def log_path(
    folder: str | Path, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int
) -> str:
    """The log file of one try of a task instance, whether it exists or not.

    Args:
        folder: ``logging.folder``.
        map_index: -1 for a task that is not mapped.
        try_number: from 1.
    """
    mapped = f"map_index={map_index}/" if map_index >= 0 else ""
    return (
        f"{folder}/dag_id={_part(dag_id)}/run_id={_part(run_id)}/task_id={_part(task_id)}/"
        f"{mapped}attempt={try_number}.log"
    )


def task_log_path(folder: str, spec: TaskSpec) -> str:
    """The log file of one dispatch. What concerns a whole run has one log for it: ``dag.log``."""
    if spec.callback is not None and spec.callback.kind != "task":
        return f"{folder}/dag_id={_part(spec.dag_id)}/run_id={_part(spec.run_id)}/dag.log"
    return log_path(folder, spec.dag_id, spec.run_id, spec.task_id, spec.map_index, spec.try_number)


def open_log(path: str) -> int:
    """A descriptor that appends to ``path``; missing folders are made.

    Raises:
        OSError: the file cannot be made or opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o640)
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        return os.open(path, flags, 0o640)


def _make_folder(folder: str) -> None:
    """``mkdir -p`` from the leaf upwards: mostly only the leaf is missing, one call then."""
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o750)
    except FileNotFoundError:
        _make_folder(os.path.dirname(folder))
        with suppress(FileExistsError):
            os.mkdir(folder, 0o750)


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


class _Stamped(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{stamp}.{int(record.msecs):03d}+0000"


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
    handler.setFormatter(_Stamped(_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
