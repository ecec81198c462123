"""What a case gets and gives: sites to measure on, records of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from benchmarks.machine import Span, creation_us
from benchmarks.site import Server, Site

__all__ = ["Bench", "Case", "Record", "percentile", "spread"]


class Record(msgspec.Struct, kw_only=True):
    """One run of one case.

    Attributes:
        figures: what was measured, by the keys of :data:`benchmarks.peers.FIGURES` and others.
        cpu_s: CPU seconds of each daemon's tree and of the database during the timed part;
            ``worker/below`` is what of the worker's was not its own: its tasks' processes.
        other_cores: CPU, in cores, that others used meanwhile.
        creation_us: what a file in a new folder cost, see :func:`benchmarks.machine.creation_us`.
    """

    case: str
    db: str
    run: int
    when: str
    figures: dict[str, float]
    cpu_s: dict[str, float] = {}
    other_cores: float = 0.0
    creation_us: float = 0.0


class Bench:
    """The parameters of one case on one kind of database.

    Args:
        case: its name.
        kind: ``sqlite`` or ``postgresql``.
        runs: how often the timed part is to run.
        scale: 1 for the sizes that the figures mean; smaller for a quick look.
        settings: of every site, ``section.key`` to value.
    """

    def __init__(
        self,
        case: str,
        kind: str,
        runs: int,
        scale: float,
        server: Server,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.case = case
        self.kind = kind
        self.runs = runs
        self.scale = scale
        self._server = server
        self._settings = dict(settings or {})

    def size(self, full: int) -> int:
        """A number of tasks or runs, scaled."""
        return max(1, round(full * self.scale))

    def site(self, settings: Mapping[str, Any] | None = None) -> Site:
        """A fresh installation on this kind of database."""
        return Site(self.kind, self._server, {**self._settings, **(settings or {})})

    def record(self, run: int, figures: Mapping[str, float], span: Span | None = None) -> Record:
        """What one run gave; ends ``span``."""
        wall, cpu, other = span.done() if span else (0.0, {}, 0.0)
        found = {name: round(value, 4) for name, value in figures.items()}
        if span:
            found.setdefault("wall_s", round(wall, 3))
        return Record(
            case=self.case,
            db=self.kind,
            run=run,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            figures=found,
            cpu_s={name: round(value, 2) for name, value in cpu.items()},
            other_cores=round(other, 2),
            creation_us=round(creation_us(span.home), 1) if span else 0.0,
        )


Case = Callable[[Bench], Iterator[Record]]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest."""
    return statistics.median(values), min(values), max(values)
