"""Wake-up hints that cross hosts: a doorbell that PostgreSQL carries on with NOTIFY.

A *place* is a host and a run directory; inside one, datagrams do (:mod:`roost.support.doorbell`).
A *line* is one thread with one connection that LISTENs for our own kind and NOTIFYs the others.
It is open only while daemons live in another place, which the daemon hears with every renewal of
its lease. So an installation in one place pays no connection, no statement and no NOTIFY, whose
commit takes a lock on the whole server (P17), and nothing is lost by being late to open:

- Whoever joins knows the others at once and opens its line; the others learn of it when they
  renew their leases next, and ring then for what they did before.
- A line that is open (again) rings its own place first, for what it could not hear before.

Rings wait in the line while the database is away. NOTIFY has no payload and is sent at most once
in some milliseconds, off the caller's thread; as everywhere, polling is the truth. Behind a
pooler that shares connections by transaction LISTEN hears nothing, and polling is all there is.

    with FarDoorbell(run_dir, "worker", arguments) as bell, bell.listen("worker") as heard:
        bell.meet(kinds_elsewhere)   # at each renewal
        bell.ring("scheduler")       # here and, if one lives there, elsewhere
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost.support.doorbell import Doorbell

if TYPE_CHECKING:
    import psycopg

__all__ = ["FarDoorbell", "channel"]

# A ring that comes sooner after a NOTIFY waits for company.
_PACE_S = 0.005
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 30.0
_GOODBYE_S = 2.0
# A dead network is noticed within a minute; what the URL says is stronger.
_PATIENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def channel(kind: str) -> str:
    """The channel that daemons of a kind listen on."""
    return f"roost_{kind}"


class FarDoorbell(Doorbell):
    """A doorbell that also reaches daemons in other places; safe to share between threads.

    Args:
        run_dir: where the daemons of this place meet.
        kind: what this daemon is; rings of it from elsewhere become local rings.
        arguments: how ``psycopg.connect`` reaches the metadata database; None where it is SQLite,
            which has no other places.
    """

    def __init__(self, run_dir: Path | str, kind: str, arguments: Mapping[str, Any] | None) -> None:
        super().__init__(run_dir)
        self._kind = kind
        self._arguments = arguments
        self._elsewhere: frozenset[str] = frozenset()
        self._line: _Line | None = None

    def ring(self, kind: str) -> int:
        """Wake every listener of ``kind``, here now and elsewhere soon.

        Returns:
            How many here have a ring waiting.
        """
        line = self._line
        if line is not None and kind in self._elsewhere:
            line.ring(kind)
        return super().ring(kind)

    def meet(self, elsewhere: frozenset[str]) -> None:
        """Learn which kinds of daemons live in other places; does not wait for anything.

        One thread calls this, usually after each renewal of the lease.
        """
        if self._arguments is None or elsewhere == self._elsewhere:
            return
        came, self._elsewhere = elsewhere - self._elsewhere, elsewhere
        if self._line is None:
            self._line = _Line(self._arguments, self._kind, self._ring_here)
            self._line.start()
        for kind in came:
            self._line.ring(kind)
        if not elsewhere:
            self._line.stop()
            self._line = None

    def close(self) -> None:
        """Send what has been rung, for two seconds at most, then close both ways."""
        line, self._line = self._line, None
        if line is not None:
            line.stop()
            line.join(_GOODBYE_S)
        super().close()

    def _ring_here(self) -> None:
        super().ring(self._kind)


class _Line(threading.Thread):
    """The thread of one connection. It says nothing of an outage: the daemon does already.

    Args:
        arguments: how to connect.
        kind: whose rings to hear.
        heard: called in this thread for one or more rings.
    """

    def __init__(
        self, arguments: Mapping[str, Any], kind: str, heard: Callable[[], object]
    ) -> None:
        super().__init__(name="far bell", daemon=True)
        self._arguments = arguments
        self._kind = kind
        self._heard = heard
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._rung: set[str] = set()
        # Not a pipe: it holds any number of wake-ups in one descriptor. -1 once it is closed.
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self, kind: str) -> None:
        """Have ``kind`` notified; costs nothing while that is to be done anyway."""
        with self._lock:
            if kind not in self._rung:
                self._rung.add(kind)
                self._rouse()

    def stop(self) -> None:
        """Ask the thread to send what has been rung and to end."""
        self._stopped.set()
        with self._lock:
            self._rouse()

    def _rouse(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Keep a connection until stopped."""
        import psycopg  # here, so that an installation on SQLite or in one place has no use of it

        arguments = {**_PATIENCE, **self._arguments}
        wait = _FIRST_WAIT_S
        try:
            while not self._stopped.is_set():
                try:
                    with psycopg.connect(**arguments, autocommit=True) as connection:
                        self._listen(connection)
                        wait = _FIRST_WAIT_S
                        self._serve(connection)
                except (psycopg.Error, OSError):
                    # Not the eventfd: while much is rung, that would be no pause.
                    self._stopped.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311
                    wait = min(wait * 2, _LONGEST_WAIT_S)
        finally:
            with self._lock:
                os.close(self._wake)
                self._wake = -1

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        # What a crashed server forgets of a NOTIFY it would not deliver either: no need to wait
        # for the disk.
        connection.execute(f"SET synchronous_commit = off; LISTEN {channel(self._kind)}".encode())
        self._heard()

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        """Hear and tell until stopped.

        Raises:
            psycopg.Error: the connection is lost.
        """
        ours = connection.info.backend_pid

        def note_in_passing(note: psycopg.Notify) -> None:
            if note.pid != ours:
                self._heard()

        # For those that come with the answer to a NOTIFY; the others are taken off in _hear.
        connection.add_notify_handler(note_in_passing)
        ready = select.poll()
        ready.register(connection.fileno(), select.POLLIN)
        ready.register(self._wake, select.POLLIN)
        free_at = 0.0
        while True:
            self._hear(connection, ours)  # first, for it takes the wake-up away
            if self._stopped.is_set():
                break
            pause_s = max(0.0, free_at - time.monotonic())
            if self._rung and not pause_s:
                self._tell(connection)
                free_at = time.monotonic() + _PACE_S
            else:
                ready.poll(pause_s * 1000 + 1 if self._rung else None)
        self._tell(connection)

    def _hear(self, connection: psycopg.Connection[Any], ours: int) -> None:
        """Take all that is there, also what libpq has read but not told: poll cannot see that."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        line = connection.pgconn
        line.consume_input()
        rings = 0
        while (note := line.notifies()) is not None:
            rings += note.be_pid != ours  # who rings has rung its own place already
        if rings:
            self._heard()

    def _tell(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            rung, self._rung = self._rung, set()
        if not rung:
            return
        try:
            connection.execute("; ".join(f"NOTIFY {channel(kind)}" for kind in rung).encode())
        except BaseException:
            with self._lock:
                self._rung |= rung
            raise
