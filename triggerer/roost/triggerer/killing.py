"""Calls of ``on_kill()`` in the runner: a user has ended the wait (D10).

A trigger that runs here is cancelled first, and the same object is asked; else it is made for the
purpose, of the code that it had. It ends with ``cleanup()`` as always. What goes wrong is written
into its task's log and has no other consequence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from roost.dag.trigger import BaseTrigger
from roost.triggerer.case import CURRENT, Case, RenderFn, ResolveFn, build, clean, explain
from roost.triggerer.messages import Killed

__all__ = ["INSIST_S", "Killing", "kill_afresh"]

log = logging.getLogger(__name__)

INSIST_S = 5.0
"""How long a trigger that is cancelled has to end, before it is asked all the same."""


class Killing:
    """One trigger's call of ``on_kill()``, made once, by whoever comes first.

    Args:
        epoch: of the claim of the kill.
        timeout_s: bounds the call.
        say: writes into the log of the trigger's task, at a level.
        done: told when nothing more comes of it.
    """

    def __init__(
        self,
        epoch: int,
        timeout_s: float,
        say: Callable[[Case, str, int], None],
        done: Callable[[Killed], None],
    ) -> None:
        self._epoch = epoch
        self._timeout_s = timeout_s
        self._say = say
        self._done = done
        self.called = False

    async def call(self, case: Case, trigger: BaseTrigger | None) -> None:
        """Ask the trigger to end what it waits for. Raises nothing of its own."""
        if self.called:
            return
        self.called = True
        if trigger is None or not has_on_kill(type(trigger)):
            self._done(Killed(case.trigger_id, self._epoch))
            return
        task = asyncio.current_task()
        error: str | None = None
        try:
            while task is not None and task.cancelling():
                task.uncancel()
            async with asyncio.timeout(self._timeout_s):
                await trigger.on_kill()
        except GeneratorExit:
            raise
        except TimeoutError:
            error = f"on_kill() was given up after {self._timeout_s:g} s (on_kill_timeout)"
        except BaseException as problem:  # SystemExit is this trigger's own, as everywhere
            error = f"on_kill() failed: {explain(problem, case.secrets)}"
        self._end(case, error)

    def fail(self, case: Case, problem: BaseException) -> None:
        """It cannot be asked: its class or its arguments cannot be had."""
        self.called = True
        text = explain(problem, case.secrets)
        self._end(case, f"on_kill() could not be called: {text}")

    def _end(self, case: Case, error: str | None) -> None:
        if error is None:
            self._say(case, "a user ended the wait: on_kill() was called", logging.INFO)
        else:
            self._say(case, error, logging.ERROR)
            line = error.rstrip().rpartition("\n")[2]
            log.warning("trigger %d (%s): %s", case.trigger_id, case.label, line)
        self._done(Killed(case.trigger_id, self._epoch, called=True, failed=error is not None))


def has_on_kill(kind: type[BaseTrigger]) -> bool:
    """Whether a class does anything there."""
    return kind.on_kill is not BaseTrigger.on_kill


async def kill_afresh(case: Case, killing: Killing, resolve: ResolveFn, render: RenderFn) -> None:
    """Make a trigger that does not run here, to ask it. Never raises."""
    CURRENT.set(case.trigger_id)
    try:
        kind = await resolve(case)
        if not has_on_kill(kind):
            await killing.call(case, None)
            return
        trigger = build(kind, case, await render(case) if case.start is not None else None)
        trigger.trigger_id = case.trigger_id
    except GeneratorExit:
        raise
    except BaseException as error:
        killing.fail(case, error)
        return
    await killing.call(case, trigger)
    await clean(case, trigger, None)
