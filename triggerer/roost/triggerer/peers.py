"""Sharing with the triggerers beside us: asks the rows, seldom, and lets the arithmetic decide."""

from __future__ import annotations

import time

import msgspec

from roost.models.engine import Tx
from roost.models.queries import jobs, triggers
from roost.support.processes import Process
from roost.triggerer.database import Database
from roost.triggerer.share import Counts, Orders, Peer, Sharing

__all__ = ["Peers", "peer_of"]

# Counting reads every waiting row: a tenth of the time at most, and more seldom without need.
_SHARE_OF_TIME = 10
_MOST_REST_S = 1.0
_REST_S = 2.0
# A loop that has not looked for so long will not take anything soon.
_STUCK_S = 10.0

_NOTHING = Orders([], [], None)


class _Detail(msgspec.Struct):
    """What a triggerer's job row says of it."""

    capacity: int = 0
    queues: list[str] = []
    look_age_s: float = 0.0


class Peers:
    """What one incarnation knows of the others.

    Args:
        me: this process.
        job_id: its lease.
        capacity: most poll triggers at once.
        queues: queues it takes triggers of; empty: every queue.
    """

    def __init__(
        self, database: Database, me: Process, job_id: int, capacity: int, queues: tuple[str, ...]
    ) -> None:
        self._db = database
        self._me = me
        self._job_id = job_id
        self._sharing = Sharing(Peer(job_id, capacity, frozenset(queues)))
        self._earliest = 0.0
        self._rests_until = 0.0
        self._again: float | None = None

    async def orders(self, waiting: bool, held: int) -> Orders:
        """What to claim and what to give back.

        Args:
            waiting: nobody owns some trigger.
            held: how many we own.
        """
        now = time.monotonic()
        due = self._again is not None and now >= self._again
        if not (waiting or held or due):
            return _NOTHING
        earliest = self._earliest if waiting or due else max(self._earliest, self._rests_until)
        if now < earliest:
            self._again = earliest if self._again is None else min(self._again, earliest)
            return _NOTHING
        peers, counts = await self._db.reading(self._read)
        done = time.monotonic()
        self._earliest = done + min(_SHARE_OF_TIME * (done - now), _MOST_REST_S)
        self._rests_until = done + _REST_S
        orders = self._sharing.orders(peers, counts, done)
        self._again = None if orders.again_s is None else done + orders.again_s
        return orders

    def next_s(self, now: float) -> float:
        """In how many seconds to ask again if nobody rings."""
        return float("inf") if self._again is None else max(0.0, self._again - now)

    def _read(self, tx: Tx) -> tuple[list[Peer], Counts]:
        alive = [job for job in jobs.live(tx) if job.kind == "triggerer" and not job.lapsed]
        found = [peer_of(job) for job in alive if job.id != self._job_id]
        return [peer for peer in found if peer is not None], triggers.counts(tx)


def peer_of(job: jobs.Job) -> Peer | None:
    """What a job row says of a triggerer; None: it takes nothing, or does not say what it takes."""
    try:
        detail = msgspec.json.decode(job.detail, type=_Detail)
    except msgspec.DecodeError:
        return None
    if detail.capacity <= 0 or detail.look_age_s > _STUCK_S:
        return None
    return Peer(job.id, detail.capacity, frozenset(detail.queues))
