"""Keeps one runner child alive while there are triggers to run, from the supervisor's side.

The runner is started when it is first wanted, replaced when it dies or falls silent, and told to
go when it has had nothing to do for a while. Whoever gives it work learns of a new runner by
:attr:`Keeper.generation` and sends everything again.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup

from roost.support.osproc import describe_exit
from roost.triggerer.child import Child
from roost.triggerer.held import LOOK_S as HELD_LOOK_S
from roost.triggerer.held import Held
from roost.triggerer.line import NO_MESSAGE, RunnerGone
from roost.triggerer.messages import (
    Ask,
    Beat,
    Blocked,
    FromRunner,
    Killed,
    Reports,
    Seen,
    Setup,
    Stop,
    Together,
    ToRunner,
    Words,
)
from roost.triggerer.places import UNSEEN
from roost.triggerer.pulse import LOOK_S, Pulse, memory_mb, sample

__all__ = ["Death", "Keeper"]

log = logging.getLogger(__name__)

# Seconds before the next runner, by how many have ended in a row before they had settled.
_BACKOFF_S = (0.0, 0.1, 0.5, 1.5)
# The same of those that ended before their loop turned: it is not a trigger that ends them, and
# each costs half a second of a CPU.
_UNREADY_BACKOFF_S = (0.0, 0.1, 0.5, 1.5, 3.0, 6.0, 12.0, 30.0)
_SETTLED_S = 30.0
# So many short-lived runners in a row may be killed from outside before triggers are suspected.
_OUTSIDE = 4
# A runner that has closed its line ends in this time, or will not by itself.
_LAST_BREATH_S = 1.0


class Death(NamedTuple):
    """The end of a runner that nobody had asked to end.

    Attributes:
        how: what became of it, in words.
        culprit: the trigger in whose step it ended, or which blocked it.
        importing: not a step of that trigger ended it, but the import of its code.
        suspicious: a trigger may have done it, though none was seen at it.
        sure: it was the culprit's doing. A signal can come from outside, or from a thread, and a
            thread can hold the GIL, in the middle of a step of somebody else.
        hung: it took a while to see.
        outside: a signal ended or stopped it, whoever sent that.
    """

    how: str
    culprit: int | None
    importing: bool
    suspicious: bool
    sure: bool = True
    hung: bool = False
    outside: bool = False


class _Child(Child):
    """One runner process, and what is seen of it."""

    def __init__(self, env: dict[str, str]) -> None:
        self.pulse = Pulse()
        super().__init__(env, self.pulse.heard)
        self.fate = ""  # why we killed it
        self.empty_mb = 0.0  # its memory before it had a trigger, as soon as it has told it
        self.swollen = False  # killed for its memory: whose step it is in says nothing
        self.blocking: Blocked | None = None  # the trigger that keeps its loop from turning
        # Where they block, of those triggers that we have told of before the watchdog could, and
        # whether they do so in the import of their code.
        self.told: dict[tuple[int | None, bool], str] = {}

    def culprit(self) -> tuple[int, bool]:
        """Whose step, or else whose import, was executing when the runner ended; 0: nobody's."""
        if self.swollen:
            return 0, False
        step, importing = self.at_work()
        blocking = 0 if self.blocking is None else self.blocking.trigger_id or 0
        in_import = self.blocking is not None and self.blocking.importing
        if self.fate and in_import and blocking == importing:
            step = 0  # it waited for the interpreter, which the import held
        elif not step and self.fate and not in_import:
            step = blocking
        if self.fate and self.blocking is not None and (step or importing) == blocking != 0:
            self.fate += f", at {self.blocking.where}"
        return step or importing, not step and importing != 0


class Keeper:
    """The runner that is, or will be.

    Args:
        setup: the first message to every runner.
        env: environment of the runner; holds no secret of ours.
        memory_mb: MiB that a runner may grow by; 0: as many as there are.
        on_reports: takes what became of triggers.
        on_blocked: takes notes of the runner's watchdog.
        on_held: takes notes of who holds the GIL, without a label; the watchdog's come after.
        on_asked: takes what triggers ask; it is answered with an ``Answer``.
        on_beat: takes the runner's signs of life.
        on_together: takes which triggers are polled as one.
        on_words: takes what triggers logged and printed.
        on_death: takes the end of a runner that nobody had asked to end.
        on_killed: takes which triggers were killed.
        on_seen: takes what watchers have seen.
        on_change: called when a runner has started or ended.
    """

    def __init__(
        self,
        setup: Setup,
        env: dict[str, str],
        *,
        memory_mb: int,
        on_reports: Callable[[Reports], None],
        on_blocked: Callable[[Blocked], None],
        on_held: Callable[[Blocked], Awaitable[None]],
        on_asked: Callable[[Ask], None],
        on_beat: Callable[[Beat], None],
        on_together: Callable[[Together], None],
        on_words: Callable[[Words], None],
        on_death: Callable[[Death], None],
        on_killed: Callable[[Killed], None],
        on_seen: Callable[[Seen], None],
        on_change: Callable[[], None],
    ) -> None:
        self._setup = setup
        self._env = env
        self._memory_mb = memory_mb
        self._on_reports = on_reports
        self._on_blocked = on_blocked
        self._on_held = on_held
        self._on_asked = on_asked
        self._on_beat = on_beat
        self._on_together = on_together
        self._on_words = on_words
        self._on_death = on_death
        self._on_killed = on_killed
        self._on_seen = on_seen
        self._on_change = on_change
        self._child: _Child | None = None
        self._wanted = anyio.Event()
        self._failures = 0  # runners in a row that have ended before they had settled
        self._pause_s = 0.0  # before the next
        self.generation = 0

    @property
    def pid(self) -> int | None:
        """Of the runner; None while there is none."""
        return None if self._child is None else self._child.pid

    def want(self) -> None:
        """Have a runner from now on."""
        self._wanted.set()

    async def dismiss(self, grace_s: float) -> None:
        """Tell the runner to end its triggers and go; it is not replaced until wanted again."""
        self._wanted = anyio.Event()
        with contextlib.suppress(RunnerGone):
            await self.send(Stop(int(grace_s * 1e6)))

    def kill(self) -> None:
        """SIGKILL the runner at once, e.g. because its triggers belong to others now."""
        if self._child is not None:
            self._child.kill()

    async def send(self, message: ToRunner) -> None:
        """Hand the runner a message; one that starts or hangs keeps its sender from nothing else.

        Raises:
            RunnerGone: there is no runner, or it ended meanwhile.
            FrameTooLarge: the message is.
        """
        if self._child is None:
            raise RunnerGone
        await self._child.line.send(message)

    async def run(self) -> None:
        """Start, serve and replace runners for ever; cancel it to kill the last one."""
        while True:
            await self._wanted.wait()
            await anyio.sleep(self._pause_s)
            try:
                child = _Child(self._env)
            except OSError as error:
                self._count_failure(ready=False)
                log.error("no trigger runner could be started: %s; %s", error, self._next())
                continue
            ended = False
            try:
                await self._serve(child)
                ended = True  # by itself, not because we are cancelled
            finally:
                self._end(child, ended)

    async def _serve(self, child: _Child) -> None:
        self._child = child
        self.generation += 1
        log.info("trigger runner %d started", child.pid)
        try:
            await self.send(self._setup)
        except RunnerGone:
            return
        self._on_change()
        async with anyio.create_task_group() as group:
            group.start_soon(child.line.write)
            group.start_soon(self._read_notes, child)
            group.start_soon(self._watch, child)
            group.start_soon(self._watch_held, child)
            group.start_soon(self._watch_exit, child, group)
            await self._read_line(child)
            group.cancel_scope.cancel()

    def _end(self, child: _Child, by_itself: bool) -> None:
        self._child = None
        asked_to_go = not self._wanted.is_set()
        status = child.reap()
        culprit, importing = child.culprit()
        child.close()
        ready = child.pulse.ready
        if asked_to_go or time.monotonic() - child.started > _SETTLED_S:
            self._failures, self._pause_s = 0, 0.0
        else:
            self._count_failure(ready)
        if not asked_to_go:
            what = child.fate or describe_exit(-status if status < 0 else status << 8)
            early = "" if ready else ", before it was ready"
            log.error("trigger runner %d %s%s; %s", child.pid, what, early, self._next())
            if by_itself:
                # SIGKILL comes from outside as a rule, for a full memory or by hand, and SIGSTOP.
                killed = status == -signal.SIGKILL and (not child.fate or child.pulse.stopped)
                outside = killed and self._failures <= _OUTSIDE
                # Before it is ready no trigger runs in it.
                suspicious = ready and (child.swollen or not outside)
                seen_at_it = child.blocking is not None and child.blocking.trigger_id == culprit
                signalled = child.pulse.stopped if child.fate else status < 0
                sure = not signalled and (seen_at_it or not child.fate)
                hung = bool(child.fate) and not child.pulse.stopped
                self._on_death(
                    Death(
                        what,
                        culprit or None,
                        importing,
                        suspicious,
                        sure,
                        hung,
                        outside=ready and signalled,
                    )
                )
        self._on_change()

    def _count_failure(self, ready: bool) -> None:
        pauses = _BACKOFF_S if ready else _UNREADY_BACKOFF_S
        self._failures += 1
        self._pause_s = pauses[min(self._failures, len(pauses) - 1)]

    def _next(self) -> str:
        """What follows the end of a runner, in words."""
        if self._pause_s < 1:
            return "starting another"
        return f"time {self._failures} in a row, starting another in {self._pause_s:g} s"

    async def _read_line(self, child: _Child) -> None:
        """Take what the runner says until the line is closed, or carries what is no message."""
        while True:
            await child.line.readable()
            if not self._take_all(child):
                break
        if not child.fate:
            with anyio.move_on_after(_LAST_BREATH_S):
                await child.exited()
                return
            child.fate = "closed the line to its supervisor"

    def _take_all(self, child: _Child) -> bool:
        """Take what is there to read; False when nothing more will come that can be read."""
        try:
            return child.line.read(partial(self._take, child))
        except NO_MESSAGE as error:
            log.error("trigger runner %d sent what is no message: %s", child.pid, error)
            child.fate = "sent what is no message, as if a trigger wrote to its line"
            return False

    async def _watch_exit(self, child: _Child, group: TaskGroup) -> None:
        """See the runner end also where a process that a trigger forked holds its line open."""
        await child.exited()
        self._take_all(child)
        group.cancel_scope.cancel()

    async def _read_notes(self, child: _Child) -> None:
        there = True
        while there:
            await child.noted()
            try:
                there = child.read_notes(partial(self._take, child))
            except NO_MESSAGE as error:
                # Who it blocks is heard of again from the next note on.
                log.warning(
                    "what trigger runner %d tells of who blocks it is no message, as if a trigger "
                    "wrote to a descriptor that is not its own: %s",
                    child.pid, error,
                )  # fmt: skip

    def _take(self, child: _Child, message: FromRunner) -> None:
        match message:
            case Reports():
                self._on_reports(message)
            case Killed():
                self._on_killed(message)
            case Seen():
                self._on_seen(message)
            case Blocked():
                self._take_block(child, message)
            case Ask():
                self._on_asked(message)
            case Together():
                self._on_together(message)
            case Beat():
                child.empty_mb = child.empty_mb or message.empty_mb
                self._on_beat(message)
            case Words():
                self._on_words(message)

    def _take_block(self, child: _Child, note: Blocked) -> None:
        """The watchdog learns of what held the GIL when it is over: we have told of it then."""
        key = note.trigger_id, note.importing
        place = child.told.get(key)
        if place is not None and note.where == UNSEEN:
            note.where = place
        self._keep_block(child, note)
        if note.over:
            child.told.pop(key, None)
        if note.over or place is None:
            self._on_blocked(note)

    @staticmethod
    def _keep_block(child: _Child, note: Blocked) -> None:
        """Note who keeps the loop from turning; an import does so only while it holds the GIL."""
        blocking = child.blocking
        if note.over and note.importing:
            if blocking is not None and blocking.importing:
                child.blocking = None
        elif not note.importing:
            child.blocking = None if note.over else note

    async def _watch(self, child: _Child) -> None:
        """Kill a runner that hangs, or grows too much.

        How a hang is told from a busy machine: :mod:`roost.triggerer.pulse`.
        """
        while True:
            await anyio.sleep(LOOK_S)
            trouble = child.pulse.look(sample(child.pid)) or self._growth(child)
            if trouble is not None:
                child.fate = f"was killed because {trouble}"
                child.kill()
                return

    async def _watch_held(self, child: _Child) -> None:
        """Tell who holds the interpreter, which the runner's own watchdog cannot say (D20)."""
        held = Held(child.pid, child.file, child.shared)
        while True:
            await anyio.sleep(HELD_LOOK_S)
            stall = held.look()
            if stall is None:
                continue
            key = stall.trigger_id, stall.importing
            if key in child.told:
                continue  # once a block: the signal ends a sleep in C before its time
            where = await held.where(stall)
            note = Blocked(
                stall.trigger_id, "", where, int(stall.seconds * 1e6),
                importing=stall.importing, held=True,
            )  # fmt: skip
            child.blocking, child.told[key] = note, where
            await self._on_held(note)

    def _growth(self, child: _Child) -> str | None:
        """What is wrong with its memory, in words; None while nothing is."""
        if not child.empty_mb or not self._memory_mb:
            return None
        used = memory_mb(child.pid)
        if used - child.empty_mb <= self._memory_mb:
            return None
        child.swollen = True
        return (
            f"it had grown to {used:.0f} MiB, {used - child.empty_mb:.0f} more than when it was "
            f"empty (triggerer.runner_memory_mb = {self._memory_mb})"
        )
