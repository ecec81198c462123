"""The supervisor's side of one task: its line, what it said, and how it ended.

An attendant is bookkeeping without input or output of its own except the task's line; the
:class:`roost.worker.hub.Hub` moves it along.
"""

from __future__ import annotations

import os
import socket
from typing import Literal, NamedTuple

import msgspec

from roost.support.clock import now_us
from roost.support.frames import MAX_FRAME, FrameBuffer, FrameTooLarge, pack
from roost.support.osproc import boot_us, describe_exit
from roost.support.task_requests import Finished, Reply, Request, TaskMessage
from roost.support.wire import Outcome, TaskSpec
from roost.worker.protocol import NextTask
from roost.worker.reactor import Timer

__all__ = ["Asked", "Attendant", "Ended", "Why"]

Why = Literal["timeout", "preempted", "revoked", "wished"]
"""Why a supervisor ends a task: its time is over, the worker stops, its dispatch is not valid, a
user wants something else of it."""

_LOST_BY: dict[Why, str] = {
    "preempted": "preempted: the worker was stopped",
    "wished": "ended on a user's wish",
}

_decode = msgspec.json.Decoder(TaskMessage).decode
_CHUNK = 256 * 1024
_FAULT_CHARS = 300


class Ended(NamedTuple):
    """A dispatch and its outcome."""

    spec: TaskSpec
    outcome: Outcome


class Asked(NamedTuple):
    """A request of a running task."""

    spec: TaskSpec
    request: Request


class Attendant:
    """One dispatch, from the claim to the end of its process.

    Attributes:
        line: the supervisor's end of the task's line; None once it is closed.
        log_path: of its log file.
        template: number of the template it is forked from.
        process_id: the dispatch that its process was forked for, mostly its own.
        pid: of the task process, once it is known.
        why: set when the supervisor has asked the task to end.
        outcome: what the task sent as its last message.
        stays: its process may be given another task.
        settled: True once an outcome has been handed on for storing.
        timer: the next step against a task that does not end by itself.
        at_end: the task has closed its side, or does not speak our language.
        blocked: the line takes nothing more for now, and something is left to send.
        fault: what it sent that was no message; empty: nothing.
    """

    __slots__ = (
        "_heard",
        "_incoming",
        "_outgoing",
        "_owes",
        "_started_at",
        "_started_boot",
        "_unread",
        "at_end",
        "blocked",
        "fault",
        "line",
        "log_path",
        "outcome",
        "pid",
        "process_id",
        "settled",
        "spec",
        "stays",
        "template",
        "timer",
        "why",
    )

    def __init__(
        self,
        spec: TaskSpec,
        line: socket.socket,
        log_path: str,
        max_frame: int = MAX_FRAME,
        *,
        process_id: int | None = None,
    ) -> None:
        self.spec = spec
        self.process_id = spec.dispatch_id if process_id is None else process_id
        self.stays = False
        self.fault = ""
        self.log_path = log_path
        self.line: socket.socket | None = line
        self.template = 0
        self.pid: int | None = None
        self.why: Why | None = None
        self.outcome: Outcome | None = None
        self.settled = False
        self.timer: Timer | None = None
        self.at_end = False
        self.blocked = False
        self._incoming = FrameBuffer(max_frame)
        # A new process has its log file already.
        self._outgoing = pack(spec if process_id is None else NextTask(spec, log_path))
        self._owes = False
        self._heard = False
        self._unread = False
        self._started_at = 0
        self._started_boot = 0
        self.flush()

    def forked(self, pid: int) -> None:
        """The template has made the process."""
        self.pid = pid
        self._started_at = now_us()
        self._started_boot = boot_us()

    def send(self, message: object) -> None:
        """Queue a frame and send what the line takes; :attr:`blocked` says if some is left.

        What is too large to be sent is told to the task instead: pulling it has its limit.
        """
        try:
            frame = pack(message)
        except FrameTooLarge as error:
            frame = pack(Reply(error=f"{error}; pull fewer XComs at once, or smaller ones"))
        self._owes = False
        self._outgoing += frame
        self.flush()

    def flush(self) -> None:
        """Send what the line takes."""
        if self._outgoing and self.line is not None:
            try:
                sent = self.line.send(self._outgoing)
            except BlockingIOError:
                sent = 0
            except OSError:  # the task is gone: how, its template will say
                sent = len(self._outgoing)
                self._unread = True
            self._outgoing = self._outgoing[sent:]
        self.blocked = bool(self._outgoing)

    def receive(self) -> list[Request]:
        """What the task asks; takes note of its outcome.

        A task that sends what is no frame or no known message is not heard any more: it ends
        without a result.
        """
        asked: list[Request] = []
        while self.line is not None and not self.at_end:
            try:
                data = self.line.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError as error:
                data = b""
                # That is how a unix socket says that its other side ended and left some unread.
                self._unread = self._unread or isinstance(error, ConnectionResetError)
            self.at_end = not data
            try:
                for body in self._incoming.feed(data):
                    self._heard = True
                    message = _decode(body)
                    if not isinstance(message, Finished):
                        self._owe(message, asked)
                    elif self.outcome is None:
                        self.outcome = message.outcome
                        self.stays = message.stays
            except FrameTooLarge as error:
                self._refuse(f"{error}; store large values elsewhere")
            except (msgspec.MsgspecError, RecursionError) as error:
                self._refuse(f"no message: {error}")
            if len(data) < _CHUNK:
                break
        return asked

    def _owe(self, request: Request, asked: list[Request]) -> None:
        """Take a request; a task has at most one that is not answered, so nothing piles up."""
        if self._owes:
            self._refuse("a request before the last one was answered")
        else:
            self._owes = True
            asked.append(request)

    def _refuse(self, what: str) -> None:
        """Hear no more of a task that does not speak our language."""
        self.at_end = True
        self.fault = f"; its worker was sent {what[:_FAULT_CHARS]}"

    def may_stay(self) -> bool:
        """Whether its process may be given another task: it offers to, and nobody has ended it."""
        quiet = self.why is None and not self.fault and not self.at_end and not self.blocked
        return self.stays and quiet

    def early_outcome(self) -> Outcome | None:
        """The outcome, if it may be stored before the process has ended.

        A success may: its body is over. A failure may lead to a next try, which must not start
        while something of this one is alive, so it waits for the end of the process (S1, S18).
        """
        if self.outcome is None or self.outcome.kind in ("failed", "lost"):
            return None
        return self.outcome

    def final_outcome(self, status: int | None, what: str = "") -> Outcome:
        """How the dispatch ended, once its process is gone.

        Args:
            status: wait status of the process; None when nobody could see it end.
            what: what happened to it then.
        """
        asked_to_end = None if self.why is None else _LOST_BY.get(self.why)
        if self.outcome is not None and not (asked_to_end and self.outcome.kind == "failed"):
            return self.outcome
        if asked_to_end:
            return self._made("lost", asked_to_end, status)
        if self._never_taken():
            return self._made("lost", "its process had ended before it took the task", status)
        if status is None:
            return self._made("lost", what, status)
        ended = describe_exit(status)
        if os.WIFEXITED(status):
            ended += " without a result"
        ended += self.fault
        if self.why == "timeout":
            limit = (self.spec.execution_timeout_us or 0) / 1e6
            ended = f"execution_timeout of {limit:g} s is over; the task was {ended}"
        return self._made("failed", ended, status)

    def _never_taken(self) -> bool:
        """Whether a process that had rested ended before it read what to do next."""
        return self.process_id != self.spec.dispatch_id and self._unread and not self._heard

    def refusal(self, error: str) -> Outcome:
        """The outcome of a dispatch that never had a process, by its own code's fault."""
        return self._made("failed", error, None)

    def _made(self, kind: Literal["failed", "lost"], error: str, status: int | None) -> Outcome:
        now = now_us()
        ran = boot_us() - self._started_boot if self._started_boot else 0
        code = None if status is None else os.waitstatus_to_exitcode(status)
        return Outcome(kind, self._started_at or now, now, error, run_us=ran, exit_code=code)
