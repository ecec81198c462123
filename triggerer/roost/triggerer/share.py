"""Which part of the poll triggers is a triggerer's: pure arithmetic, and a little memory.

Every triggerer computes the same split from the same rows, and takes only its part while others
have room for theirs. Queues that the same triggerers serve are one *part*; within all parts
together the split levels load by capacity. Nobody asks anybody: a peer that does not take what is
its own for a while is left out, so that nothing waits for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["GRACE_S", "Part", "Peer", "Sharing", "slack", "split"]

# Longer than the poll interval of a triggerer that has heard no bell: it is slow, not gone.
GRACE_S = 6.5
EXCESS_S = 1.0
LEFT_OUT_S = 30.0
_ROUNDS = 50
_ENOUGH = 1e-6

#: Poll triggers by owner (None: nobody) and queue.
Counts = Mapping[tuple[int | None, str], int]


class Peer(NamedTuple):
    """A triggerer as its job row describes it; no queues: it serves every queue."""

    job_id: int
    capacity: int
    queues: frozenset[str] = frozenset()

    def serves(self, queue: str) -> bool:
        """Whether it takes triggers of this queue."""
        return not self.queues or queue in self.queues


class Part(NamedTuple):
    """Queues that the same triggerers serve.

    Attributes:
        queues: their names.
        waiting: triggers in them that nobody owns.
        held: how many each triggerer owns.
        target: how many each should own; together all there are.
    """

    queues: frozenset[str]
    waiting: int
    held: dict[int, int]
    target: dict[int, int]


def split(peers: Sequence[Peer], counts: Counts) -> list[Part]:
    """What each of the peers should own; what others own is theirs and does not count.

    Of all splits it is the one that levels load by capacity best, and one that is level already
    stays as it is.
    """
    by_id = {peer.job_id: peer for peer in sorted(peers) if peer.capacity > 0}
    queues: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for _, queue in counts:
        members = tuple(job_id for job_id, peer in by_id.items() if peer.serves(queue))
        if members:
            queues[members].add(queue)
    groups = sorted(queues)
    held: list[dict[int, int]] = []
    waiting: list[int] = []
    for members in groups:
        mine = dict.fromkeys(members, 0)
        free = 0
        for (owner, queue), count in counts.items():
            if queue not in queues[members]:
                continue
            if owner is None:
                free += count
            elif owner in mine:
                mine[owner] += count
        held.append(mine)
        waiting.append(free)
    shares = _level(by_id, held, waiting)
    return [
        Part(frozenset(queues[members]), free, mine, _whole(share, mine, sum(mine.values()) + free))
        for members, mine, free, share in zip(groups, held, waiting, shares, strict=True)
    ]


def _level(
    peers: Mapping[int, Peer], held: Sequence[Mapping[int, int]], waiting: Sequence[int]
) -> list[dict[int, float]]:
    """Pour one part after the other over what the others have put there, until nothing moves."""
    shares = [{job_id: float(count) for job_id, count in mine.items()} for mine in held]
    totals = [sum(mine.values()) + free for mine, free in zip(held, waiting, strict=True)]
    load = dict.fromkeys(peers, 0.0)
    for share in shares:
        for job_id, count in share.items():
            load[job_id] += count
    for _ in range(_ROUNDS):
        moved = 0.0
        for share, total in zip(shares, totals, strict=True):
            others = {job_id: load[job_id] - share[job_id] for job_id in share}
            for job_id, amount in _pour(peers, others, total).items():
                moved = max(moved, abs(amount - share[job_id]))
                share[job_id] = amount
                load[job_id] = others[job_id] + amount
        if moved < _ENOUGH or len(shares) == 1:
            break
    return shares


def _pour(peers: Mapping[int, Peer], others: Mapping[int, float], total: int) -> dict[int, float]:
    """Spread ``total`` so that the lowest levels (load by capacity) are raised first."""
    order = sorted(others, key=lambda job_id: (others[job_id] / peers[job_id].capacity, job_id))
    room = 0
    filled = float(total)
    level = 0.0
    for place, job_id in enumerate(order):
        room += peers[job_id].capacity
        filled += others[job_id]
        level = filled / room
        if place + 1 < len(order):
            after = order[place + 1]
            if level <= others[after] / peers[after].capacity:
                break
    return {job_id: max(0.0, level * peers[job_id].capacity - others[job_id]) for job_id in others}


def _whole(share: Mapping[int, float], held: Mapping[int, int], total: int) -> dict[int, int]:
    """Whole numbers that add up to the total; who holds more gets the odd one, so it stays."""
    target = {job_id: int(amount + _ENOUGH) for job_id, amount in share.items()}
    left = total - sum(target.values())
    order = sorted(share, key=lambda j: (-round(share[j] - target[j], 3), target[j] - held[j], j))
    while left > 0:
        for job_id in order[:left]:
            target[job_id] += 1
        left -= len(order[:left])
    return target


def slack(target: int) -> int:
    """How much more than its part a triggerer keeps, rather than move it to and fro."""
    return max(2, target // 20)


class Orders(NamedTuple):
    """What to do now: at most this many of these queues.

    Attributes:
        claim: to take, of what nobody owns.
        release: to give back, because others have room for it.
        again_s: when to ask again if nothing rings before; None: no need to.
    """

    claim: list[tuple[frozenset[str], int]]
    release: list[tuple[frozenset[str], int]]
    again_s: float | None


class Sharing:
    """One triggerer's view of the split over time: whom it leaves out, and since when it has
    too much."""

    def __init__(self, me: Peer) -> None:
        self._me = me
        self._behind: dict[int, tuple[float, int]] = {}  # since when, and what it held
        self._left_out: dict[int, tuple[float, int]] = {}  # until when, and what it held
        self._excess_since: float | None = None

    def orders(self, peers: Sequence[Peer], counts: Counts, now: float) -> Orders:
        """Decide by what the rows say at this moment.

        Args:
            peers: the other triggerers that are alive.
            counts: of everybody's poll triggers.
            now: monotonic seconds.
        """
        total = _totals(counts)
        for job_id, (until, held) in list(self._left_out.items()):
            if now >= until or total[job_id] > held:
                del self._left_out[job_id]
        while True:
            taking = [peer for peer in peers if peer.job_id not in self._left_out]
            parts = [
                part for part in split([self._me, *taking], counts) if self._me.job_id in part.held
            ]
            late = self._late(taking, parts, total, now)
            if not late:
                return self._decide(taking, parts, total, now)
            for job_id in late:
                del self._behind[job_id]
                self._left_out[job_id] = (now + LEFT_OUT_S, total[job_id])

    def _late(
        self, peers: Sequence[Peer], parts: Sequence[Part], total: Mapping[int, int], now: float
    ) -> list[int]:
        """Peers that have room and have not taken what waits for them for too long."""
        behind = set()
        for peer in peers:
            for part in parts:
                mine = part.held.get(peer.job_id)
                short = mine is not None and mine < part.target[peer.job_id]
                if short and part.waiting and total[peer.job_id] < peer.capacity:
                    behind.add(peer.job_id)
        for job_id in [job_id for job_id in self._behind if job_id not in behind]:
            del self._behind[job_id]
        for job_id in behind:
            _, before = self._behind.get(job_id, (now, total[job_id]))
            if job_id not in self._behind or total[job_id] > before:
                self._behind[job_id] = (now, total[job_id])
        return [job_id for job_id, (since, _) in self._behind.items() if now - since >= GRACE_S]

    def _decide(
        self, peers: Sequence[Peer], parts: Sequence[Part], total: Mapping[int, int], now: float
    ) -> Orders:
        me = self._me.job_id
        free = self._me.capacity - total[me]
        claim = []
        release = []
        for part in parts:
            over = part.held[me] - part.target[me]
            take = min(-over, part.waiting, free)
            if take > 0:
                claim.append((part.queues, take))
                free -= take
            elif over > slack(part.target[me]) or total[me] > self._me.capacity:
                room = sum(_room(peer, part, total) for peer in peers)
                if (give := min(over, room - part.waiting)) > 0:
                    release.append((part.queues, give))
        if not release:
            self._excess_since = None
        elif self._excess_since is None:
            self._excess_since = now
        due = self._excess_since is not None and now - self._excess_since >= EXCESS_S
        waits = [since + GRACE_S - now for since, _ in self._behind.values()]
        if self._excess_since is not None:
            waits.append(self._excess_since + EXCESS_S - now)
        if due:
            self._excess_since = None
        again = max(0.05, min(waits)) if waits else None
        return Orders(claim, release if due else [], again)


def _room(peer: Peer, part: Part, total: Mapping[int, int]) -> int:
    """How many more of a part a peer is to take, and can."""
    if peer.job_id not in part.held:
        return 0
    short = part.target[peer.job_id] - part.held[peer.job_id]
    return max(0, min(short, peer.capacity - total[peer.job_id]))


def _totals(counts: Counts) -> dict[int, int]:
    total: dict[int, int] = defaultdict(int)
    for (owner, _), count in counts.items():
        if owner is not None:
            total[owner] += count
    return total
