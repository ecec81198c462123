"""ProcessTrigger: waits for the end of a command that was started on this host (poll lane)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException

__all__ = ["ProcessTrigger"]

TAIL = 4096
_GRACE_S = 5.0


def _settle(future: Any, result: bool) -> None:
    if not future.done():
        future.set_result(result)


class ProcessTrigger(BaseTrigger):
    """Fires when a detached command (:mod:`roost.support.detached`) has ended.

    Its payload is ``{"exit_code": …, "timed_out": …, "tail": …}``: the exit code, or None where
    the command was killed or its host restarted; whether ``deadline`` has passed; the last 4 KB of
    output. While it waits it holds one descriptor of the process and looks at nothing.

    The command runs on one host, so a triggerer of that host has to wait for it: another one fails
    the task and says so. Give the task a ``queue`` that only triggerers of its host serve
    (``triggerer.queues``).

    Args:
        folder: where its files are.
        token: the mark that it and its children bear.
        pid: of its shell.
        started: start time of that, in ticks since boot.
        hostname: where it was started.
        host_id: the boot and pid namespace there.
        deadline: when to end it by force; None: never.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(
        self,
        folder: str,
        token: str,
        pid: int,
        started: int,
        hostname: str,
        host_id: str,
        deadline: datetime | None = None,
    ) -> None:
        if not folder or not token or pid <= 1:
            raise RoostException(f"ProcessTrigger needs a detached command, not pid {pid!r}")
        if deadline is not None and deadline.tzinfo is None:
            raise RoostException(f"deadline needs a time zone, got {deadline!r}")
        self.folder = folder
        self.token = token
        self.pid = pid
        self.started = started
        self.hostname = hostname
        self.host_id = host_id
        self.deadline = None if deadline is None else deadline.astimezone(UTC)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Which process, where."""
        return (
            "roost.triggers.ProcessTrigger",
            {
                "folder": self.folder,
                "token": self.token,
                "pid": self.pid,
                "started": self.started,
                "hostname": self.hostname,
                "host_id": self.host_id,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end of the shell, then read what it noted."""
        import asyncio  # late: operators make this trigger in processes that never run it
        import os

        from roost.support import detached, processes

        timed_out = False
        if detached.exit_code(self.folder) is None and self._may_run():
            try:
                # The handle pins the pid; whether it is still that process is looked at after.
                handle = os.pidfd_open(self.pid)
            except ProcessLookupError:
                handle = -1
            if handle >= 0:
                # No coroutine of its own: its frame would be kept as long as the command runs.
                loop = asyncio.get_running_loop()
                ended = loop.create_future()
                left = self._left()
                timer = None if left is None else loop.call_later(left, _settle, ended, False)
                try:
                    if processes.is_alive(self.pid, self.started):
                        loop.add_reader(handle, _settle, ended, True)
                        timed_out = not await ended
                finally:
                    loop.remove_reader(handle)
                    os.close(handle)
                    if timer is not None:
                        timer.cancel()
        if timed_out:
            await asyncio.to_thread(detached.kill, self.token, _GRACE_S)
        yield TriggerEvent(self.told(timed_out))

    async def on_kill(self) -> None:
        """A user cleared or marked the task: end the command and all that it started."""
        import asyncio

        from roost.support import detached, processes

        if processes.host_id() == self.host_id:
            await asyncio.to_thread(detached.kill, self.token, _GRACE_S)
            await asyncio.to_thread(detached.remove, self.folder)

    def _may_run(self) -> bool:
        """Whether the command may still run; False once its host has been restarted.

        Raises:
            RoostException: it runs where we cannot see it.
        """
        import socket

        from roost.support import processes

        if processes.host_id() == self.host_id:
            return True
        here = socket.gethostname()
        if here == self.hostname:
            return False
        raise RoostException(
            f"the command runs on host {self.hostname!r} and this triggerer on {here!r}: give the "
            "task a queue that only triggerers of its host serve (triggerer.queues)"
        )

    def _left(self) -> float | None:
        if self.deadline is None:
            return None
        from roost.support.clock import SECOND, now_us, to_us

        return max(0.0, (to_us(self.deadline) - now_us()) / SECOND)

    def told(self, timed_out: bool = False) -> dict[str, Any]:
        """The payload, once the command has ended."""
        from roost.support import detached

        tail = detached.output_tail(self.folder, TAIL)
        return {
            "exit_code": None if timed_out else detached.exit_code(self.folder),
            "timed_out": timed_out,
            "tail": tail.decode("utf-8", "backslashreplace").replace("\0", "\\0"),
        }

    def __repr__(self) -> str:
        return f"<ProcessTrigger {self.pid} on {self.hostname}>"
