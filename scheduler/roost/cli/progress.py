"""Watching a backfill: one live line at a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import click
from sqlalchemy import Engine

from roost.cli.watch import Pace
from roost.models.engine import read
from roost.models.queries import backfills, selection
from roost.support.config import Config

__all__ = ["follow_backfill", "progress_line"]

_BAR = 24
_LINE_EVERY_S = 5.0
_MOST_FAILED = 10


def progress_line(states: Mapping[str, int], ended_before: int, took_s: float) -> str:
    """``[######..................] 5/20 done, 1 failed, 10 running, 2.5/s, 6 s left``.

    Args:
        states: how many runs are in each state.
        ended_before: how many had ended when the watching began.
        took_s: seconds since then.
    """
    total = sum(states.values())
    failed = states.get("failed", 0)
    done = states.get("success", 0) + failed
    filled = _BAR * done // total if total else _BAR
    parts = [f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total} done"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{states.get('running', 0)} running"]
    if done > ended_before and took_s > 0:
        rate = (done - ended_before) / took_s
        parts.append(f"{rate:.3g}/s")
        if done < total:
            parts.append(f"{(total - done) / rate:.0f} s left")
    return ", ".join(parts)


def follow_backfill(config: Config, engine: Engine, dag_id: str, backfill_id: int) -> bool:
    """Show its progress to the end; True if a run failed."""
    live = sys.stderr.isatty()
    began = shown_at = time.monotonic()
    first: int | None = None
    try:
        with Pace(config.run_dir, 1.0) as pace:
            while True:
                with read(engine) as tx:
                    states = backfills.states(tx, backfill_id)
                done = states.get("success", 0) + states.get("failed", 0)
                first = done if first is None else first
                now = time.monotonic()
                line = progress_line(states, first, now - began)
                left = states.get("queued", 0) + states.get("running", 0)
                if live:
                    click.echo(f"\r\x1b[K{line}", err=True, nl=not left)
                elif now - shown_at >= _LINE_EVERY_S or not left:
                    shown_at = now
                    click.echo(line, err=True)
                if not left:
                    break
                pace.wait()
    except KeyboardInterrupt:
        click.echo(
            f"\nbackfill {backfill_id} goes on; the same command again watches it, "
            f"`roost dags backfill {dag_id} --cancel` ends it",
            err=True,
        )
        raise
    return _summary(engine, dag_id, backfill_id, states, time.monotonic() - began)


def _summary(
    engine: Engine, dag_id: str, backfill_id: int, states: Mapping[str, int], took_s: float
) -> bool:
    counts = ", ".join(f"{states[state]} {state}" for state in sorted(states, reverse=True))
    click.echo(f"backfill {backfill_id} of {dag_id} ended after {took_s:.1f} s: {counts}")
    with read(engine) as tx:
        failed = selection.failed_of_backfill(tx, backfill_id)
    for run_id in failed[:_MOST_FAILED]:
        click.echo(
            f"failed: {run_id}; `roost tasks states-for-dag-run {dag_id} {run_id}`", err=True
        )
    if len(failed) > _MOST_FAILED:
        click.echo(f"and {len(failed) - _MOST_FAILED} more", err=True)
    return bool(failed)
