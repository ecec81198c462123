"""The anyio shell that every daemon wears: signals, doorbell, watchdog, patience.

The work itself is synchronous and runs in threads: one step, one transaction. Nothing here knows
what the work is.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

from roost.support.doorbell import BellSocket, drain
from roost.support.notify import Notifier

__all__ = [
    "LONGEST_ATTEMPT_S",
    "LONGEST_WAIT_S",
    "NEWCOMER_S",
    "Calm",
    "Patience",
    "Stop",
    "Wake",
    "feed_watchdog",
    "hear",
    "set_up_logging",
]

log = logging.getLogger("roost")
T = TypeVar("T")
_FIRST_WAIT_S = 0.2
# Everybody's lease lapses in a long outage. Others wait for as long as a lease lasts before they
# judge: in that time each has to try again, and an attempt may take some seconds itself.
LONGEST_WAIT_S = 5.0
LONGEST_ATTEMPT_S = 5.0  # to connect in vain
# A daemon that has just begun does not know of an outage before. All that live have waited, tried
# again and been answered by then, so it judges no sooner; nor later than a lease ends (12 s), so a
# take-over takes a newcomer no longer than anybody else: below 15 s. A test ties the numbers.
NEWCOMER_S = LONGEST_WAIT_S + LONGEST_ATTEMPT_S
_TELL_EVERY_S = 30.0


class Wake:
    """A wake-up that is never lost: set while nobody sleeps, it ends the next sleep at once.

    One sleeper, any number of wakers, all on one loop.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """End the present sleep, or the next one."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until woken, at most ``timeout_s`` seconds; True if somebody woke."""
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
        woken = self._event.is_set()
        self._event = anyio.Event()
        return woken


class Patience:
    """Runs synchronous steps in threads, again and again while what they need is away.

    Args:
        is_passing: tells an error after which the same step may succeed later by itself.

    Attributes:
        failed_at: monotonic moment of the last such error. Who judges the leases of others waits
            until these have had time to renew them after it.
    """

    def __init__(self, is_passing: Callable[[Exception], bool]) -> None:
        self._is_passing = is_passing
        self.failed_at = float("-inf")
        self._away_since: float | None = None
        self._told_at = float("-inf")

    async def once(self, step: Callable[[], T]) -> T:
        """One attempt. A cancelled caller leaves; the step ends by itself, whole."""
        return await anyio.to_thread.run_sync(step, abandon_on_cancel=True)

    async def until_done(self, step: Callable[[], T]) -> T:
        """Run a step until it succeeds, with growing, jittered waits between attempts.

        The step must be safe to repeat: the answer to a commit may have been lost.
        """
        wait = _FIRST_WAIT_S
        while True:
            try:
                result = await self.once(step)
            except Exception as error:
                if not self._is_passing(error):
                    raise
                self._note(error)
            else:
                if self._away_since is not None:
                    log.info("the database is back after %.1f s", self._away_s())
                    self._away_since = None
                return result
            await anyio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads load
            wait = min(wait * 2, LONGEST_WAIT_S)

    def _note(self, error: Exception) -> None:
        """Say it once when the outage begins, then at most every half minute."""
        now = self.failed_at = time.monotonic()
        if self._away_since is None:
            self._away_since, self._told_at = now, float("-inf")
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            log.warning(
                "the database cannot be reached for %.0f s, trying again: %s",
                self._away_s(),
                str(error).partition("\n")[0],
            )

    def _away_s(self) -> float:
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since


class Calm:
    """When a daemon may judge the leases of others: not before these could renew them (S15).

    To be asked in every attempt of a step that judges. One that began before an outage and is done
    after it finds all leases over.

    Args:
        patience: knows when the database was last away.
        grace_s: for how long after that nobody is judged.
        slow_s: a step of our own that takes longer says that the renewals of others wait as well:
            for SQLite's one writer, say.
    """

    def __init__(self, patience: Patience, *, grace_s: float, slow_s: float) -> None:
        self._patience = patience
        self._grace_s, self._slow_s = grace_s, slow_s
        self._begun: dict[object, float] = {}
        self._outage_at = float("-inf")
        self.join(float("inf"))

    def join(self, server_up_s: float) -> None:
        """We are new; the database's server has run for so long: before, nobody could renew."""
        unknown = self._grace_s - NEWCOMER_S  # there may have been one the server does not know of
        outage_at = time.monotonic() - min(server_up_s, unknown)
        self._outage_at = max(self._outage_at, outage_at)

    @contextmanager
    def step(self) -> Iterator[None]:
        """While a step of ours is under way; several may be at once."""
        key, began = object(), time.monotonic()
        self._begun[key] = began
        try:
            yield
        finally:
            del self._begun[key]
            if self._is_slow(began):
                self._outage_at = time.monotonic()

    def _is_slow(self, began: float) -> bool:
        return time.monotonic() - began > self._slow_s

    def left_s(self) -> float:
        """In how many seconds leases may be judged; 0: now. May be asked in a step, in a thread."""
        if any(map(self._is_slow, list(self._begun.values()))):
            return self._grace_s
        calm_since = max(self._patience.failed_at, self._outage_at)
        return max(0.0, calm_since + self._grace_s - time.monotonic())


class Stop:
    """SIGTERM and SIGINT: the first asks to stop, the second ends the process at once."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.asked = anyio.Event()

    async def obey_signals(self) -> None:
        """Runs until cancelled."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                if self.asked.is_set():
                    log.warning("%s again: ending at once", number.name)
                    os._exit(130)
                log.info("%s: %s", number.name, self._what)
                self.asked.set()


async def hear(heard: BellSocket, wake: Wake) -> None:
    """Turn rings of a doorbell into wake-ups; runs until cancelled."""
    while True:
        await anyio.wait_readable(heard)
        drain(heard)
        wake.set()


async def feed_watchdog(notifier: Notifier, is_well: Callable[[], bool] = lambda: True) -> None:
    """Tell systemd's watchdog that the loop turns, while ``is_well`` says so."""
    interval = notifier.watchdog_interval()
    while interval is not None:
        if is_well():
            notifier.watchdog()
        await anyio.sleep(interval)


def set_up_logging(level: str, who: str) -> None:
    """Log to stderr, one line a message; systemd adds the time when it collects them."""
    journald = "JOURNAL_STREAM" in os.environ
    stamp = "" if journald else "%(asctime)s "
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format=f"{stamp}{who}[%(process)d] %(levelname)s %(message)s",
        force=True,
    )
