"""Where the log files of tasks are, and how their lines begin: for whoever writes to one.

``<folder>/dag_id=…/run_id=…/task_id=…/[map_index=…/]attempt=N.log``. A resume after a deferral
appends to the file of its try, and so does a triggerer with what its trigger logs.
"""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["FORMAT", "Stamped", "log_path", "open_log", "run_log_path"]

_PLAIN = re.compile(r"[\w.:+~@ -]{1,200}", re.ASCII)
FORMAT = "[%(asctime)s] {%(filename)s:%(lineno)d} %(levelname)s - %(message)s"


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


def run_log_path(folder: str | Path, dag_id: str, run_id: str) -> str:
    """The log file of what concerns a whole run."""
    return f"{folder}/dag_id={_part(dag_id)}/run_id={_part(run_id)}/dag.log"


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


class Stamped(logging.Formatter):
    """Moments in UTC with milliseconds, as all lines of a task's log have them."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{stamp}.{int(record.msecs):03d}+0000"
