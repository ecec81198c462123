"""Records as JSON lines, their summary, and the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks.harness import Record, spread
from benchmarks.peers import FIGURES, Figure

__all__ = ["Results", "Summary", "doubts", "summarize", "table"]

_MUCH_CREATION_US = 200
_MANY_OTHER_CORES = 0.2


class Summary(msgspec.Struct, frozen=True):
    """One figure over all runs on one kind of database."""

    db: str
    figure: str
    runs: int
    median: float
    least: float
    greatest: float
    other_cores: float  # the greatest among the runs


class Results:
    """A file of JSON lines that grows as runs end, and the summary beside it.

    Args:
        path: the file; made with its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, record: Record) -> None:
        """Keep one record and write it down at once."""
        self.records.append(record)
        with self.path.open("ab") as out:
            out.write(msgspec.json.encode(record) + b"\n")

    def close(self) -> list[Summary]:
        """Write the summary; returns it."""
        summaries = summarize(self.records)
        text = msgspec.json.format(msgspec.json.encode(summaries), indent=1)
        self.path.with_suffix(".summary.json").write_bytes(text + b"\n")
        return summaries


def summarize(records: Iterable[Record]) -> list[Summary]:
    """Median, least and greatest of every figure, for each kind of database."""
    values: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in records:
        for name, value in record.figures.items():
            values.setdefault((record.db, name), []).append((value, record.other_cores))
    made = []
    for (db, name), found in values.items():
        busy = max(other for _, other in found)
        made.append(Summary(db, name, len(found), *spread([value for value, _ in found]), busy))
    return made


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(name: str, figure: Figure, ours: dict[str, Summary | None]) -> list[str]:
    shipped, tuned = figure.shipped, figure.tuned
    peer = " / ".join(_number(value) for value in (shipped, tuned) if value is not None) or "-"
    cells = [figure.what, figure.unit, peer, _number(figure.target)]
    for summary in ours.values():
        if summary is None:
            cells += ["-", "-", "-"]
            continue
        best = tuned if tuned is not None else shipped
        ends = f"[{_number(summary.least)}..{_number(summary.greatest)}]"
        cells.append(f"{_number(summary.median)} {ends}")
        cells.append(_verdict(figure, summary.median))
        cells.append(_ratio(figure, summary.median, best))
    return cells


def _verdict(figure: Figure, value: float) -> str:
    if figure.target is None:
        return ""
    met = value <= figure.target if figure.better == "lower" else value >= figure.target
    return "ok" if met else "MISSED"


def _ratio(figure: Figure, value: float, peer: float | None) -> str:
    if peer is None or not value:
        return "-"
    ratio = peer / value if figure.better == "lower" else value / peer
    return f"{_number(ratio)}x"


def table(summaries: Sequence[Summary]) -> str:
    """The table: Airflow as shipped / tuned, the target, and ours on each kind of database.

    The last column of each is how many times better than Airflow's best figure it is.
    """
    kinds = list(dict.fromkeys(summary.db for summary in summaries))
    found = {(summary.db, summary.figure): summary for summary in summaries}
    head = ["what", "unit", "Airflow", "target"]
    for kind in kinds:
        head += [f"{kind} [min..max]", "", "better"]
    lines = [head]
    for name, figure in FIGURES.items():
        ours = {kind: found.get((kind, name)) for kind in kinds}
        if any(ours.values()):
            lines.append(_cells(name, figure, ours))
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    padded = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in padded)


def doubts(records: Sequence[Record]) -> list[str]:
    """What speaks against comparing these records with others, a line each."""
    found = []
    other = max((record.other_cores for record in records), default=0.0)
    if other > _MANY_OTHER_CORES:
        found.append(f"others used up to {other:g} cores meanwhile: compare cpu_s at most")
    cost = max((record.creation_us for record in records), default=0.0)
    if cost > _MUCH_CREATION_US:
        found.append(
            f"a new log file cost up to {cost:.0f} us, some 50 are usual: many files were deleted "
            "near by in the last minutes; wait six, or measure in another folder"
        )
    return found
