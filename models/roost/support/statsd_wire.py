"""The wire below the statsd client: the statsd package's format without its constructor.

``statsd.StatsClient`` resolves its host when it is made, once and for good, and raises if it
cannot; its formatting and packing are sound. So :class:`_Packer` keeps those and leaves the
socket to :class:`Sender`, which runs in the client's background thread only.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from statsd import StatsClient

__all__ = ["MAX_DATAGRAM", "Sender"]

log = logging.getLogger(__name__)

# Fits an Ethernet frame together with IPv6 and UDP headers and a tunnel's.
MAX_DATAGRAM = 1432
_RESOLVE_AGAIN_S = 60.0
_RETRY_S = 5.0


class _Packer(StatsClient):  # type: ignore[misc]  # the package has no type hints
    """Collects datagrams; resolves nothing, opens nothing."""

    def __init__(self) -> None:
        self._prefix = None
        self._maxudpsize = MAX_DATAGRAM + 1  # it sends what is smaller than this
        self.datagrams: list[str] = []

    def _send(self, data: str) -> None:
        self.datagrams.append(data)


class Sender:
    """Sends metrics to one host, looking its address up anew when that may have changed.

    Not thread-safe: for one thread, which may be held up for as long as a look-up takes.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._sock: socket.socket | None = None
        self._address: Any = None
        self._looked_at = float("-inf")
        self._told = False

    def send(
        self,
        gauges: Mapping[str, float],
        counts: Mapping[str, int],
        timings: Iterable[tuple[str, float]],
        now: float,
    ) -> int:
        """Send everything, and return how many metrics were lost on the way.

        Args:
            now: monotonic seconds, decides whether the host is looked up again.
        """
        packer = _Packer()
        with packer.pipeline() as pipe:
            for name, value in gauges.items():
                pipe.gauge(name, _plain(value))
            for name, count in counts.items():
                pipe.incr(name, count)
            for name, ms in timings:
                pipe.timing(name, ms)
        self._connect(now)
        return sum(
            datagram.count("\n") + 1 for datagram in packer.datagrams if not self._sent(datagram)
        )

    def close(self) -> None:
        """Close the socket; a later send opens another."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _sent(self, datagram: str) -> bool:
        if self._sock is None:
            return False
        try:
            self._sock.sendto(datagram.encode("ascii"), self._address)
        except BlockingIOError:  # the kernel's buffer is full
            return False
        except OSError:  # gone, closed or out of reach: another address may do
            self.close()
            return False
        return True

    def _connect(self, now: float) -> None:
        if now - self._looked_at < (_RETRY_S if self._sock is None else _RESOLVE_AGAIN_S):
            return
        self._looked_at = now
        try:
            family, _, _, _, address = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_DGRAM
            )[0]
            if self._sock is None or self._sock.family != family:
                self.close()
                self._sock = socket.socket(family, socket.SOCK_DGRAM)
                self._sock.setblocking(False)
        except (OSError, UnicodeError, OverflowError) as error:  # keep the last good address
            if self._address is None and not self._told:
                self._told = True  # once: who watches the numbers sees how long it lasts
                log.warning(
                    "no metrics: statsd.host %r cannot be looked up (%s); tried again every %.0f s",
                    self._host, error, _RETRY_S,
                )  # fmt: skip
            return
        if self._told:
            self._told = False
            log.warning("metrics go to statsd.host %r now", self._host)
        self._address = address


def _plain(value: float) -> float:
    """A gauge that prints without an exponent, which not every statsd server reads."""
    return int(value) if value == int(value) else round(value, 4)
