"""Appends what triggers said to the logs of their tasks, in a thread and in batches (D21).

The files are in ``logging.folder`` of this host, which may be shared with the workers. A disk that
is full or slow costs words, never a trigger: what cannot be kept is counted and told once.
"""

from __future__ import annotations

import logging
import os
import time

import anyio.to_thread

from roost.support.logfile import log_path, open_log
from roost.support.masking import mask
from roost.support.service import Wake
from roost.triggerer.messages import Said, Words

__all__ = ["TaskLogs"]

log = logging.getLogger(__name__)

_MOST_WAITING = 16 << 20
_TELL_EVERY_S = 60.0


class TaskLogs:
    """The task logs below ``folder``."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._waiting: list[Said] = []
        self._size = 0
        self._lost = 0
        self._told_at = float("-inf")
        self._wake = Wake()

    def put(self, words: Words) -> None:
        """Take what triggers said; it is written soon."""
        for said in words.said:
            if self._size > _MOST_WAITING:
                self._lose(said, "the log disk is too slow")
                continue
            self._waiting.append(said)
            self._size += len(said.text)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; then the rest, at once."""
        try:
            while True:
                await self._wake.wait()
                while self._waiting:
                    # Not given up half-way when we are cancelled: lines are whole, and once there.
                    await anyio.to_thread.run_sync(self._write, self._take())
        finally:
            self._write(self._take())

    def _take(self) -> list[Said]:
        waiting, self._waiting, self._size = self._waiting, [], 0
        return waiting

    def _write(self, batch: list[Said]) -> None:
        texts: dict[str, list[str]] = {}
        last: dict[str, Said] = {}
        for said in batch:
            names = (said.dag_id, said.run_id, said.task_id, said.map_index, said.try_number)
            path = log_path(self._folder, *names)
            texts.setdefault(path, []).append(said.text)
            last[path] = said
        for path, parts in texts.items():
            data = mask("".join(parts)).encode("utf-8", "backslashreplace")
            try:
                _append(path, data)
            except OSError as error:
                self._lose(last[path], str(error))

    def _lose(self, said: Said, why: str) -> None:
        self._lost += 1
        if time.monotonic() - self._told_at > _TELL_EVERY_S:
            self._told_at = time.monotonic()
            log.warning(
                "what trigger %d logs is not in its task's log: %s (%d times so far)",
                said.trigger_id, why, self._lost,
            )  # fmt: skip


def _append(path: str, data: bytes) -> None:
    fd = open_log(path)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
