"""What processes cost: memory, CPU, and how much of the machine others took meanwhile."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.support.processes import descendants

__all__ = ["Span", "cpu_ns", "creation_us", "pss_mb", "tree"]

_TICK = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> set[int]:
    """A process and everything below it."""
    return {pid} | {child for child, _ in descendants(pid)}


def pss_mb(pids: set[int]) -> float:
    """Proportional memory of processes in MiB: a page shared by two counts half for each.

    Raises:
        PermissionError: daemons hide their memory from other processes of the same user; root may.
    """
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def cpu_ns(pid: int) -> int:
    """CPU of one live process, all threads, in nanoseconds; its children are not counted."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total


def _cpu_s(pids: set[int], *, reaped: bool = True) -> float:
    """CPU seconds of processes, and of the children that they have reaped."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11 : 15 if reaped else 13]))
    return total / _TICK


def _machine_s() -> float:
    """CPU seconds that the whole machine spent on anything but waiting."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICK


def creation_us(folder: Path) -> float:
    """CPU that a new folder with one empty file costs in ``folder``, in microseconds: a task's log.

    ext4 does not reuse the inode of a deleted file for up to six minutes, and looks at all of them
    whenever it needs one. After thousands were deleted near by, a file costs ten times as much.
    """
    costs = []
    with tempfile.TemporaryDirectory(prefix="cost-", dir=folder) as scratch:
        for number in range(5):
            began = time.thread_time_ns()
            (Path(scratch) / str(number)).mkdir()
            (Path(scratch) / str(number) / "log").touch()
            costs.append(time.thread_time_ns() - began)
    return statistics.median(costs) / 1e3


class Span:
    """CPU of named process trees over a stretch of time, and of everybody else.

    Args:
        groups: name and root pid of each tree.
        home: of the installation that is measured.
    """

    def __init__(self, groups: dict[str, int], home: Path) -> None:
        self.home = home
        self._groups = groups
        self._before = self._sample()
        self._machine = _machine_s()
        self._own = time.process_time()
        self._start = time.monotonic()

    def _sample(self) -> dict[str, float]:
        """Seconds of each tree, and ``<name>/below`` what of it is not its root's own."""
        used = {}
        for name, pid in self._groups.items():
            used[name] = _cpu_s(tree(pid))
            used[f"{name}/below"] = used[name] - _cpu_s({pid}, reaped=False)
        return used

    def done(self) -> tuple[float, dict[str, float], float]:
        """``(wall seconds, CPU seconds of each tree, other_cores)``.

        ``other_cores`` is the CPU, in cores, that neither the trees nor this harness used: an upper
        bound of foreign load. Figures taken while it was high say little.
        """
        wall = time.monotonic() - self._start
        after = self._sample()
        used = {name: after[name] - before for name, before in self._before.items()}
        foreign = _machine_s() - self._machine - sum(used[name] for name in self._groups)
        foreign -= time.process_time() - self._own
        return wall, used, max(0.0, foreign / wall)
