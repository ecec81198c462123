"""How often somebody may ask: a bucket of tokens for each client, and one for all."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["Rates"]

_BURST_S: Final = 5.0
_ALL: Final = 10.0
_MOST_CLIENTS: Final = 4096


class _Bucket:
    """Fills at ``rate`` a second up to ``size``; each request takes one."""

    __slots__ = ("_at", "_left", "_rate", "_size")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._size = self._left = max(1.0, rate * _BURST_S)
        self._at = now

    def wait_s(self, now: float) -> float:
        """How long until there is one to take; 0: there is."""
        self._left = min(self._size, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (1.0 - self._left) / self._rate)

    def take(self) -> None:
        """Take one."""
        self._left -= 1.0


class Rates:
    """Who may ask now.

    Args:
        rate: requests a second of one client, on average; a burst of five seconds' worth goes
            through. All clients together have ten times as much.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._all = _Bucket(rate * _ALL, now)
        # The clients that asked last: forgetting one gives it a full bucket, and no more than that.
        self._clients: OrderedDict[str, _Bucket] = OrderedDict()

    def refusal(self, client: str, now: float) -> float | None:
        """None: go on. Else the seconds after which to come again.

        Args:
            client: who asks.
            now: monotonic seconds.
        """
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = _Bucket(self._rate, now)
            if len(self._clients) > _MOST_CLIENTS:
                self._clients.popitem(last=False)
        self._clients.move_to_end(client)
        wait = max(bucket.wait_s(now), self._all.wait_s(now))
        if wait > 0:
            return wait
        bucket.take()
        self._all.take()
        return None
