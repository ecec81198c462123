"""``python -m benchmarks [--db KIND] [--runs N] [CASE …]``: measure, note, print the table."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from benchmarks.cases import CASES
from benchmarks.harness import Bench
from benchmarks.report import Results, doubts, table
from benchmarks.site import Server

_RESULTS = Path(__file__).parent / "results"
_KINDS = ("sqlite", "postgresql")


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--db", "kinds", multiple=True, type=click.Choice(_KINDS), help="Default: both.")
@click.option("--runs", default=3, show_default=True, help="How often each timed part runs.")
@click.option("--scale", default=1.0, show_default=True, help="Part of the full sizes; for a look.")
@click.option("--set", "changes", multiple=True, help="SECTION.KEY=VALUE of roost.toml.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the JSON lines.")
def main(
    cases: tuple[str, ...],
    kinds: tuple[str, ...],
    runs: int,
    scale: float,
    changes: tuple[str, ...],
    out: Path | None,
) -> None:
    """Measure CASES (all of them by default) and print them beside Airflow's figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    results = Results(out or _RESULTS / f"{stamp}.jsonl")
    settings = dict(_setting(change) for change in changes)
    server = Server()
    failed = []
    try:
        for case in cases or tuple(CASES):
            for kind in kinds or _KINDS:
                began = time.monotonic()
                try:
                    for record in CASES[case](Bench(case, kind, runs, scale, server, settings)):
                        results.add(record)
                        shown = "  ".join(f"{k}={v:g}" for k, v in record.figures.items())
                        click.echo(f"{case} {kind} #{record.run}  {shown}", err=True)
                except Exception:
                    traceback.print_exc()
                    failed.append(f"{case} on {kind}")
                click.echo(f"{case} {kind} took {time.monotonic() - began:.0f} s", err=True)
    finally:
        server.close()
    click.echo(table(results.close()))
    click.echo(f"{runs} runs; records in {results.path}")
    for doubt in doubts(results.records):
        click.echo(f"in doubt: {doubt}")
    if changes:
        click.echo(f"measured with {', '.join(changes)}")
    if scale != 1:
        click.echo(f"sizes scaled by {scale:g}: these are not the figures that the table means")
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


def _setting(change: str) -> tuple[str, Any]:
    """A setting by its name, and its value: as JSON where it is that, otherwise as text."""
    name, _, text = change.partition("=")
    try:
        return name, msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return name, text


main()
