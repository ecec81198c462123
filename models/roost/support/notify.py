"""sd_notify: tells systemd that a daemon is ready, alive, or about to stop (Type=notify).

Without ``NOTIFY_SOCKET`` in the environment every call does nothing; with it, none raises or
blocks, since a service must not fail for lack of somebody to tell.

    notifier = Notifier()
    notifier.ready("3 DAGs, 2 workers")
    while running:
        notifier.watchdog()              # at least every watchdog_interval() seconds
    notifier.stopping("draining 4 tasks")
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["Notifier"]

# A status line is for people; systemd refuses messages beyond a few kB.
_MAX_STATUS = 1000


class Notifier:
    """Messages to the service manager of this process.

    Args:
        environ: where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are read from;
            the process's own by default.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        address = self._environ.get("NOTIFY_SOCKET", "")
        # "@name" stands for an address in the abstract name space, which starts with a NUL.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def active(self) -> bool:
        """Whether a service manager listens."""
        return self._address[:1] in ("/", "\0")

    def ready(self, status: str = "") -> bool:
        """The daemon does its work from now on; dependent units may start."""
        return self._say("READY=1", _status(status))

    def status(self, text: str) -> bool:
        """One line that ``systemctl status`` shows."""
        return self._say(_status(text))

    def stopping(self, status: str = "") -> bool:
        """The daemon has begun to stop."""
        return self._say("STOPPING=1", _status(status))

    def watchdog(self) -> bool:
        """The daemon is alive; systemd kills and restarts it when this stops coming."""
        return self._say("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Starting or stopping takes longer: do not give up within the next ``seconds``."""
        return self._say(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def watchdog_interval(self) -> float | None:
        """Seconds between calls of :meth:`watchdog`: half of what systemd allows.

        None when no watchdog is set for this process.
        """
        try:
            allowed = int(self._environ.get("WATCHDOG_USEC", "0"))
            owner = int(self._environ.get("WATCHDOG_PID", os.getpid()))
        except ValueError:
            return None
        return allowed / 2_000_000 if allowed > 0 and owner == os.getpid() else None

    def _say(self, *fields: str) -> bool:
        message = "\n".join(field for field in fields if field).encode("utf-8", "replace")
        if not message or not self.active:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                return sock.sendto(message, self._address) == len(message)
        except (OSError, ValueError):  # nobody there, queue full, an address too long or with NUL
            return False


def _status(text: str) -> str:
    """A STATUS field; a line break would start another field."""
    line = " ".join(text.split())
    return f"STATUS={line[:_MAX_STATUS]}" if line else ""
