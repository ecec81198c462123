"""Wake-up hints between daemons of one host: an empty datagram says "look now".

A daemon that sleeps listens on ``<run_dir>/<kind>-<pid>.bell``; whoever has made work for it
rings its kind. Polling is the truth and a bell only makes it fast, so a ring may be lost (nobody
listens, the queue is full, the peer is of another user) and :meth:`Doorbell.ring` never raises
and never blocks. A full queue loses nothing: the listener has a ring to wake up to already.

    with Doorbell(home / "run") as bell, bell.listen("worker") as heard:
        while work():
            wait_readable(heard)   # anyio.wait_readable in a daemon, select in a thread
            drain(heard)           # before looking, so that no ring is lost
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["BellSocket", "Doorbell", "drain"]

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_BELL = re.compile(r"([a-z][a-z0-9_]*)-(\d+)(?:\.\d+)?\.bell")
# sockaddr_un holds 108 bytes and the kernel wants room for the final NUL.
_MAX_PATH = 107
_MAX_NAME = len("x" * 32 + "-4194304.999.bell")
# A directory's mtime is as coarse as the kernel's tick: two changes within it look like one, so
# a listing taken that soon after a change is not kept.
_COARSE_NS = 50_000_000
# However trustworthy mtime looks, the wall clock it comes from can be set back.
_RELIST_S = 2.0

_Bells = dict[str, list[tuple[str, int]]]


class BellSocket(socket.socket):
    """A bound, non-blocking datagram socket that takes its file away when it is closed."""

    _bell: Path | None = None
    _owner: int = 0

    def close(self) -> None:
        """Close the socket and remove its file, unless this is a forked copy of the owner's."""
        bell, self._bell = self._bell, None
        super().close()
        if bell is not None and self._owner == os.getpid():
            bell.unlink(missing_ok=True)


class Doorbell:
    """The bells of one run directory; safe to share between threads.

    Args:
        run_dir: where the daemons of one Roost home meet, usually ``$ROOST_HOME/run``. Made with
            mode 0700 when somebody listens; a path too long for a unix socket address is handled.
    """

    def __init__(self, run_dir: Path | str) -> None:
        self._dir = Path(run_dir)
        self._long = len(os.fsencode(self._dir)) + 1 + _MAX_NAME > _MAX_PATH
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        # (mtime the listing belongs to or -1, monotonic moment of the listing, the bells)
        self._listing: tuple[int, float, _Bells] = (-1, 0.0, {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sending socket; later rings reach nobody. Listening sockets stay open."""
        self._sender.close()

    def listen(self, kind: str) -> BellSocket:
        """A socket that becomes readable when somebody rings ``kind``.

        Args:
            kind: what the listener is: ``scheduler``, ``worker``, ``triggerer``, …

        Raises:
            ValueError: ``kind`` is not a lower-case word.
            OSError: the run directory cannot be made or written to.
        """
        _check(kind)
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        heard = BellSocket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            heard.setblocking(False)
            with self._base() as base:
                name = self._bind(heard, base, f"{kind}-{os.getpid()}")
            os.chmod(self._dir / name, 0o600)
        except BaseException:
            heard.close()
            raise
        heard._bell, heard._owner = self._dir / name, os.getpid()
        return heard

    def ring(self, kind: str) -> int:
        """Wake every listener of ``kind``; returns how many have a ring waiting now.

        Costs a ``stat`` and a ``sendto`` for each listener. Files of dead processes are removed.
        """
        try:
            bells = self._bells().get(kind, ())
            if not bells:
                return 0
            with self._base() as base:
                return sum(self._send(base, name, pid) for name, pid in bells)
        except OSError:  # no such directory, no descriptor left, closed: a hint may be lost
            return 0

    def _send(self, base: str, name: str, pid: int) -> bool:
        try:
            self._sender.sendto(b"", f"{base}/{name}")
        except BlockingIOError:
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            self._listing = (-1, 0.0, {})
            # Nobody is bound to it. While its process lives the file is that process's business:
            # it may be about to bind that very name anew.
            if not _alive(pid):
                (self._dir / name).unlink(missing_ok=True)
            return False
        except OSError:
            return False
        return True

    def _bells(self) -> _Bells:
        known, listed_at, bells = self._listing
        mtime = os.stat(self._dir).st_mtime_ns
        now = time.monotonic()
        if mtime == known and now - listed_at < _RELIST_S:
            return bells
        settled = abs(time.time_ns() - mtime) > _COARSE_NS
        bells = {}
        for name in os.listdir(self._dir):
            if found := _BELL.fullmatch(name):
                bells.setdefault(found[1], []).append((name, int(found[2])))
        self._listing = (mtime if settled else -1, now, bells)
        return bells

    @staticmethod
    def _bind(heard: socket.socket, base: str, stem: str) -> str:
        """Bind the first free name; a file that a dead process of our pid left is replaced."""
        for number in range(1000):
            name = f"{stem}.{number}.bell" if number else f"{stem}.bell"
            try:
                heard.bind(f"{base}/{name}")
            except OSError:
                if not os.path.lexists(f"{base}/{name}"):
                    raise
                if _bound(f"{base}/{name}"):
                    continue
                os.unlink(f"{base}/{name}")
                heard.bind(f"{base}/{name}")
            return name
        raise OSError(f"1000 bells named {stem} are in use")

    @contextmanager
    def _base(self) -> Iterator[str]:
        """The directory under a name that fits a socket address.

        A long one goes by ``/proc/self/fd``, not by a short folder in the temporary directory:
        services with ``PrivateTmp=yes`` do not share one, and everybody may write to it.
        """
        if not self._long:
            yield str(self._dir)
            return
        handle = os.open(self._dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)


def drain(heard: socket.socket) -> int:
    """Take every waiting ring off a listening socket; returns how many there were."""
    count = 0
    while True:
        try:
            heard.recv(1)
        except BlockingIOError:
            return count
        count += 1


def _check(kind: str) -> None:
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is no kind of bell: use a lower-case word such as 'worker'")


def _bound(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
