"""The benchmark's own arithmetic: a wrong table is worse than none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks import dags
from benchmarks.harness import Record, percentile
from benchmarks.peers import FIGURES
from benchmarks.report import Results, doubts, summarize, table


def record(run: int, other: float = 0.0, **figures: float) -> Record:
    return Record(case="c", db="sqlite", run=run, when="", figures=figures, other_cores=other)


def test_a_percentile_is_a_value_that_occurred() -> None:
    assert [percentile([5, 1, 3, 2, 4], share) for share in (0, 0.5, 0.9, 1)] == [1, 3, 5, 5]
    assert percentile([7], 0.9) == 7


def test_a_summary_is_median_least_and_greatest() -> None:
    (found,) = summarize([record(0, 0.1, x=3), record(1, 0.9, x=1), record(2, x=2)])
    assert (found.median, found.least, found.greatest, found.runs) == (2, 1, 3, 3)
    assert found.other_cores == 0.9


def test_the_table_says_what_was_met_and_how_many_times_better() -> None:
    shown = table(summarize([record(0, hop_p50_ms=2, fan_per_s=94)]))
    hop = next(line for line in shown.splitlines() if line.startswith("end of a task"))
    assert "ok" in hop
    assert "90x" in hop  # against the tuned 180 ms, not the shipped 1,030
    fan = next(line for line in shown.splitlines() if line.startswith("500"))
    assert "MISSED" in fan
    assert "20x" in fan
    assert "idle" not in shown


def test_what_spoils_a_comparison_is_said() -> None:
    """Other load, and a file system that searches past the inodes of files just deleted."""
    quiet, busy = record(0, 0.1), record(1, 0.9)
    slow = Record(case="c", db="sqlite", run=2, when="", figures={}, creation_us=700.0)
    assert doubts([quiet]) == []
    assert ["0.9 cores" in line for line in doubts([quiet, busy])] == [True]
    assert ["700 us" in line for line in doubts([quiet, slow])] == [True]


def test_results_are_on_disk_at_once(tmp_path: Path) -> None:
    results = Results(tmp_path / "new" / "r.jsonl")
    results.add(record(0, x=1))
    assert results.path.read_text().count("\n") == 1
    results.close()
    assert '"median"' in results.path.with_suffix(".summary.json").read_text()


def test_every_figure_that_the_table_shows_is_measured() -> None:
    cases = Path(dags.__file__).with_name("cases").glob("*.py")
    source = "".join(path.read_text() for path in cases)
    written = "".join(source.replace("{what}", what) for what in ("tasks", "runs", "mapped"))
    written += "".join(source.replace("{kind}", kind) for kind in ("external", "poll", "timer"))
    names = ("killed", "stopped", "sleep", "process", "file", "redis_stream", "amqp")
    written += "".join(source.replace("{name}", name) for name in names)
    assert [name for name in FIGURES if f'"{name}"' not in written] == []


@pytest.mark.parametrize(
    "source",
    [
        dags.chain("a", 2),
        dags.fan("a", 2),
        dags.mapped("a", 2),
        dags.traced_chain("a", 2, Path("/x")),
        dags.defer("a", 2, Path("/x")),
        dags.count_waits("a", Path("/x")),
        dags.moments("a", 2, Path("/x")),
        dags.timeouts("a", 2),
    ],
)
def test_the_dag_files_are_python(source: str) -> None:
    ast.parse(source)
