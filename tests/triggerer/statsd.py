"""What a statsd server is told of blocks."""

from __future__ import annotations

import socket
from collections import Counter

__all__ = ["Statsd"]


class Statsd:
    """Counts what a server is told."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._counts: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """Every counter of blocks so far."""
        while True:
            try:
                lines = self._socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return dict(self._counts)
            for line in lines:
                name, _, value = line.partition(":")
                if name.startswith("roost.triggers.blocked"):
                    self._counts[name.removeprefix("roost.triggers.")] += int(value.split("|")[0])

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
