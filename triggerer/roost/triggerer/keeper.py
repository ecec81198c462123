"""Keeps one runner child alive while there are triggers to run, from the supervisor's side.

The runner is started when it is first wanted, replaced when it dies or falls silent, and told to
go when it has had nothing to do for a while. Whoever gives it work learns of a new runner by
:attr:`Keeper.generation` and sends everything again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup

from roost.triggerer.backoff import Backoff
from roost.triggerer.child import Child
from roost.triggerer.death import Death, death_of
from roost.triggerer.health import Health
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
from roost.triggerer.pulse import LOOK_S

__all__ = ["Keeper"]

log = logging.getLogger(__name__)

# A runner that has closed its line ends in this time, or will not by itself.
_LAST_BREATH_S = 1.0


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
        self._child: Child | None = None
        self._wanted = anyio.Event()
        self._backoff = Backoff()
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
            await anyio.sleep(self._backoff.pause_s)
            try:
                child = Child(self._env, Health(self._memory_mb))
            except OSError as error:
                self._backoff.ended(0, ready=False)
                log.error("no trigger runner could be started: %s; %s", error, self._backoff)
                continue
            ended = False
            try:
                await self._serve(child)
                ended = True  # by itself, not because we are cancelled
            finally:
                self._end(child, ended)

    async def _serve(self, child: Child) -> None:
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

    def _end(self, child: Child, by_itself: bool) -> None:
        self._child = None
        asked_to_go = not self._wanted.is_set()
        status, at_work = child.reap(), child.at_work()
        child.close()
        if asked_to_go:
            self._backoff.reset()
        else:
            self._tell_death(child, status, at_work, by_itself)
        self._on_change()

    def _tell_death(
        self, child: Child, status: int, at_work: tuple[int, int], by_itself: bool
    ) -> None:
        ready = child.health.pulse.ready
        self._backoff.ended(time.monotonic() - child.started, ready)
        death = death_of(child.health, status, at_work, self._backoff.in_a_row)
        early = "" if ready else ", before it was ready"
        log.error("trigger runner %d %s%s; %s", child.pid, death.how, early, self._backoff)
        if by_itself:
            self._on_death(death)

    async def _read_line(self, child: Child) -> None:
        """Take what the runner says until the line is closed, or carries what is no message."""
        while True:
            await child.line.readable()
            if not self._take_all(child):
                break
        if not child.health.fate:
            with anyio.move_on_after(_LAST_BREATH_S):
                await child.exited()
                return
            child.health.fate = "closed the line to its supervisor"

    def _take_all(self, child: Child) -> bool:
        """Take what is there to read; False when nothing more will come that can be read."""
        try:
            return child.line.read(partial(self._take, child))
        except NO_MESSAGE as error:
            log.error("trigger runner %d sent what is no message: %s", child.pid, error)
            child.health.fate = "sent what is no message, as if a trigger wrote to its line"
            return False

    async def _watch_exit(self, child: Child, group: TaskGroup) -> None:
        """See the runner end also where a process that a trigger forked holds its line open."""
        await child.exited()
        self._take_all(child)
        group.cancel_scope.cancel()

    async def _read_notes(self, child: Child) -> None:
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

    def _take(self, child: Child, message: FromRunner) -> None:
        match message:
            case Reports():
                self._on_reports(message)
            case Killed():
                self._on_killed(message)
            case Seen():
                self._on_seen(message)
            case Blocked():
                if child.health.noted(message):
                    self._on_blocked(message)
            case Ask():
                self._on_asked(message)
            case Together():
                self._on_together(message)
            case Beat():
                child.health.weighed(message.empty_mb)
                self._on_beat(message)
            case Words():
                self._on_words(message)

    async def _watch(self, child: Child) -> None:
        """Kill a runner that hangs, or grows too much."""
        while True:
            await anyio.sleep(LOOK_S)
            if child.health.look(child.pid):
                child.kill()
                return

    async def _watch_held(self, child: Child) -> None:
        """Tell who holds the interpreter, which the runner's own watchdog cannot say (D20)."""
        held = Held(child.pid, child.file, child.shared)
        while True:
            await anyio.sleep(HELD_LOOK_S)
            stall = held.look()
            if stall is None:
                continue
            if child.health.was_told(stall.trigger_id, stall.importing):
                continue
            where = await held.where(stall)
            note = Blocked(
                stall.trigger_id, "", where, int(stall.seconds * 1e6),
                importing=stall.importing, held=True,
            )  # fmt: skip
            child.health.held(note)
            await self._on_held(note)
