"""What triggers ask: Connections, Variables and XComs, on the way to who answers (H26, S48).

A trigger awaits its answer and keeps nobody waiting. The same functions that tasks call work in a
thread (``asyncio.to_thread``); on the loop's own thread, where they would stop every trigger for
ever, they raise instead. Only so many requests are under way at once, the others wait for their
turn, and what a trigger that has ended still wanted is dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from roost.dag.runtime import Supervisor
from roost.exceptions import RoostException
from roost.support.task_requests import ConnectionGet, Reply, Request, VariableGet, XComPull
from roost.triggerer.case import CURRENT
from roost.triggerer.messages import Answer, Ask

__all__ = ["Asking"]

UNDER_WAY = 64
PER_TRIGGER = 100


class _Asked(NamedTuple):
    trigger_id: int
    request: XComPull | VariableGet | ConnectionGet
    answer: Future[Reply]


class Asking:
    """The :class:`roost.dag.runtime.TriggerSupervisor` of the triggers of one loop.

    Args:
        loop: theirs; it runs in the thread that makes this.
        send: takes each request when its turn has come; called in the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[Ask], None]) -> None:
        self._loop = loop
        self._send = send
        self._thread = threading.get_ident()
        self._numbers = itertools.count(1)
        self._waiting: deque[_Asked] = deque()
        # None: its place is taken until the answer comes, but nobody waits for that any more.
        self._sent: dict[int, _Asked | None] = {}
        self._wanted: Counter[int] = Counter()  # how many requests of each trigger there are

    @classmethod
    def of(cls, supervisor: Supervisor) -> Asking:
        """For the running loop, answered on the spot: for runs inside one process."""

        def answer(ask: Ask) -> None:
            asking.answered(Answer(ask.number, supervisor.call(ask.request)))

        asking = cls(asyncio.get_running_loop(), answer)
        return asking

    # -- for the code of triggers

    def is_asked(self) -> bool:
        """Whether a trigger's code is calling, in the loop or in a thread of its own."""
        return CURRENT.get(None) is not None

    def call(self, request: Request) -> Reply:
        """Send one request from a thread and wait for its answer.

        Raises:
            RoostException: this is the loop's thread.
        """
        if threading.get_ident() == self._thread:
            raise RoostException(
                "this would block every trigger: `await` the async form (Connection.get_async, "
                "Variable.get_async, self.get_connection, self.xcom_pull), or call it in a "
                "function given to asyncio.to_thread"
            )
        return self._ask(request).result()

    async def call_async(self, request: Request) -> Reply:
        """Send one request and await its answer; from any loop of this process."""
        return await asyncio.wrap_future(self._ask(request))

    def _ask(self, request: Request) -> Future[Reply]:
        answer: Future[Reply] = Future()
        if not isinstance(request, XComPull | VariableGet | ConnectionGet):
            answer.set_result(Reply(error="a trigger may only read Connections, Variables, XComs"))
            return answer
        asked = _Asked(CURRENT.get(), request, answer)
        if threading.get_ident() == self._thread:
            self._take(asked)
        else:
            self._loop.call_soon_threadsafe(self._take, asked)
        return answer

    # -- for the runner; all of it in the loop

    def answered(self, answer: Answer) -> None:
        """Hand an answer to who asked, if it is still wanted, and send what waits."""
        asked = self._sent.pop(answer.number, None)
        if asked is not None:
            self._forget(asked)
            _settle(asked, answer.reply)
        self._go_on()

    def ended(self, trigger_id: int) -> None:
        """A trigger has ended: drop what its threads still wait for."""
        if trigger_id not in self._wanted:
            return
        del self._wanted[trigger_id]
        dropped = [one for one in self._waiting if one.trigger_id == trigger_id]
        self._waiting = deque(one for one in self._waiting if one.trigger_id != trigger_id)
        for number, sent in self._sent.items():
            if sent is not None and sent.trigger_id == trigger_id:
                self._sent[number] = None
                dropped.append(sent)
        for one in dropped:
            _settle(one, Reply(error="its trigger has ended"))

    def _take(self, asked: _Asked) -> None:
        if self._wanted[asked.trigger_id] >= PER_TRIGGER:
            error = f"this trigger waits for {PER_TRIGGER} answers already"
            _settle(asked, Reply(error=error))
            return
        self._wanted[asked.trigger_id] += 1
        self._waiting.append(asked)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and len(self._sent) < UNDER_WAY:
            asked = self._waiting.popleft()
            if asked.answer.cancelled():
                self._forget(asked)
                continue
            number = next(self._numbers)
            self._sent[number] = asked
            self._send(Ask(number, asked.trigger_id, asked.request))

    def _forget(self, asked: _Asked) -> None:
        left = self._wanted[asked.trigger_id] - 1
        if left > 0:
            self._wanted[asked.trigger_id] = left
        else:
            del self._wanted[asked.trigger_id]


def _settle(asked: _Asked, reply: Reply) -> None:
    """Give a reply to who asked, unless it was cancelled meanwhile."""
    if asked.answer.set_running_or_notify_cancel():
        asked.answer.set_result(reply)
