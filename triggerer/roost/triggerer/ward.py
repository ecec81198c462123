"""One runner of several, and what it was given: which trigger runs where is told by the lanes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterator

from roost.support.trigger_wire import TriggerSpec
from roost.triggerer.keeper import Keeper
from roost.triggerer.line import RunnerGone
from roost.triggerer.messages import Cancel, Forget, Kill, Source, Start, Together

__all__ = ["SourcesFn", "Ward"]

SourcesFn = Callable[[Collection[str]], Awaitable[list[Source]]]
"""Reads the DAG file versions with these hashes."""

_RUNNER_IDLE_S = 60.0
# As many versions of DAG files may stay in a runner although no trigger of it needs them.
_SPARE_SOURCES = 16
_SLACK = 500
# Arguments in one message: a megabyte each for hundreds of triggers fits into no frame.
_MOST_BYTES = 8 << 20


class Ward:
    """What one runner holds, as its supervisor knows it.

    Args:
        keeper: of the runner.
        apart: its triggers have strikes, or are suspected.
    """

    def __init__(self, keeper: Keeper, *, apart: bool) -> None:
        self.keeper = keeper
        self.apart = apart
        #: Epoch by id of what the present runner was given and has not ended durably.
        self.running: dict[int, int] = {}
        #: The same of what it is to kill; told by the one who keeps count of that.
        self.killing: dict[int, int] = {}
        self._together: dict[int, list[int]] = {}  # who is polled as one, by whose work it counts
        self._generation = -1
        self._sent_sources: dict[str, None] = {}  # in the order in which they were last sent for
        self._code: dict[int, str] = {}  # code hash by id of what the runner was given
        self._idle_since: float | None = None
        self._ever: set[int] = set()  # who was in the present process
        self._crowded = False  # too many to be told

    def ready(self) -> bool:
        """Have a runner from now on; False while there is none yet. Its start is told."""
        self.keeper.want()
        self._idle_since = None
        if self.keeper.pid is None:
            return False
        self._forget_old_runner()
        return True

    async def give(self, specs: list[TriggerSpec], sources: SourcesFn) -> None:
        """Have the runner run these; what it does not get is found missing at the next look.

        Args:
            specs: the triggers.
            sources: asked for the code that the runner does not have.
        """
        found = await self._missing(specs, sources)
        if found is None:
            return
        # Noted first: the report of a trigger that fires at once must find it here.
        self.running.update((spec.trigger_id, spec.epoch) for spec in specs)
        self._note_ever(specs)
        for spec in specs:  # one string for all: there are thousands
            self._code[spec.trigger_id] = sys.intern(spec.code_hash)
        with contextlib.suppress(RunnerGone):
            await self._send_sources(found)
            for some in _slices(specs):
                await self.keeper.send(Start(some))
            await self._forget_sources()

    async def kill(self, specs: list[TriggerSpec], timeout_us: int, sources: SourcesFn) -> None:
        """Have the runner end these for their users; what runs of them is over with that."""
        found = await self._missing(specs, sources)
        if found is None:
            return
        for spec in specs:
            self.running.pop(spec.trigger_id, None)
            self.killing[spec.trigger_id] = spec.epoch
        self._note_ever(specs)
        with contextlib.suppress(RunnerGone):
            await self._send_sources(found)
            for some in _slices(specs):
                await self.keeper.send(Kill(some, timeout_us))

    async def _send_sources(self, sources: list[Source]) -> None:
        for source in sources:  # one at a time: a zip has megabytes
            await self.keeper.send(Start([], [source]))
            self._sent_sources[source.code_hash] = None

    async def _missing(self, specs: list[TriggerSpec], sources: SourcesFn) -> list[Source] | None:
        """The code of these that the runner does not have; None: there is no runner to send it
        to, or it is another one than at first."""
        if not self.ready():
            return None
        generation = self._generation
        wanted = {spec.code_hash for spec in specs} - self._sent_sources.keys()
        found = await sources(wanted) if wanted else []
        return found if generation == self.keeper.generation else None

    async def take_back(self, trigger_ids: list[int], over: list[int]) -> None:
        """End triggers in the runner; ``over`` are those that nobody waits for any more."""
        with contextlib.suppress(RunnerGone):
            await self.keeper.send(Cancel(trigger_ids, over))

    def changed(self) -> None:
        """The runner started or ended: a new one holds nothing yet."""
        self._forget_old_runner()
        if self.keeper.pid is None:
            self.running.clear()
            self.killing.clear()

    def together(self, told: Together) -> None:
        """These triggers are polled as one: what one does, all do."""
        self._together[told.trigger_id] = told.trigger_ids
        if len(self._together) > 2 * len(self.running) + _SLACK:
            self._together = {k: ids for k, ids in self._together.items() if k in self.running}

    def all_with(self, trigger_id: int) -> dict[int, int]:
        """Epoch by id of a trigger and of those that are polled with it, as far as they run."""
        group = self._together.get(trigger_id, [trigger_id])
        # Who is missing has no row any more, or its event is stored: it is not sent again.
        return {one: self.running[one] for one in group if one in self.running}

    def of_same_code(self, trigger_id: int) -> dict[int, int]:
        """Epoch by id of those that run and were deferred by the same version of a DAG file."""
        code = self._code.get(trigger_id)
        return {one: epoch for one, epoch in self.running.items() if self._code.get(one) == code}

    def was_only(self, trigger_id: int, unit: Collection[int]) -> bool:
        """Whether nobody else was ever in the present process: only these, or polled with this."""
        known = {*unit, *self._together.get(trigger_id, ())}
        return not self._crowded and self._ever <= known

    def _note_ever(self, specs: list[TriggerSpec]) -> None:
        self._ever.update(spec.trigger_id for spec in specs)
        if len(self._ever) > 2 * len(self.running) + _SLACK:
            self._ever.clear()
            self._crowded = True

    async def rest(self) -> None:
        """Let a runner go that has had nothing to do for a while."""
        if self.running or self.killing or self.keeper.pid is None:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > _RUNNER_IDLE_S:
            self._idle_since = None
            await self.keeper.dismiss(1.0)

    async def _forget_sources(self) -> None:
        """Have the runner let go of versions that nothing uses: files are edited for months."""
        many = len(self._sent_sources) > _SPARE_SOURCES
        if many or len(self._code) > 2 * len(self.running) + _SLACK:
            self._code = {key: code for key, code in self._code.items() if key in self.running}
        if not many:
            return
        unused = self._sent_sources.keys() - set(self._code.values())
        old = [code for code in self._sent_sources if code in unused][:-_SPARE_SOURCES]
        for code in old:
            del self._sent_sources[code]
        if old:
            await self.keeper.send(Forget(old))

    def _forget_old_runner(self) -> None:
        if self._generation != self.keeper.generation:
            self._generation = self.keeper.generation
            self._sent_sources.clear()
            self._code.clear()
            self._together.clear()
            self._ever.clear()
            self._crowded = False
            self.running.clear()
            self.killing.clear()


def _slices(specs: list[TriggerSpec]) -> Iterator[list[TriggerSpec]]:
    """All of these, as many at once as fit into a message well."""
    some: list[TriggerSpec] = []
    size = 0
    for spec in specs:
        if some and size + spec.size > _MOST_BYTES:
            yield some
            some, size = [], 0
        some.append(spec)
        size += spec.size
    if some:
        yield some
