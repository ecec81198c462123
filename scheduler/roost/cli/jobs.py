"""``roost jobs``: the daemons and whether they are well."""

from __future__ import annotations

import socket
from typing import Any

import click
import msgspec

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, iso, output_option
from roost.cli.session import reading
from roost.models.queries import listing
from roost.support.clock import SECOND
from roost.support.processes import host_id, is_alive

__all__ = ["ailment", "check", "jobs", "list_"]

_COMMANDS = {
    "list": Lazy("roost.cli.jobs:list_", "List the daemons that have not ended."),
    "check": Lazy("roost.cli.jobs:check", "Exit with 1 unless a daemon is well."),
}
_COLUMNS = (
    "id", "kind", "hostname", "pid", "started_at", "lease_age_s", "healthy", "trouble", "detail",
)  # fmt: skip
_KINDS = click.Choice(["scheduler", "triggerer", "worker"])
_WEDGED_S = 30.0


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def jobs() -> None:
    """Ask how the daemons are."""


def ailment(job: Any) -> str | None:
    """What is wrong with a daemon that says it lives, or None.

    Its lease is judged by the database's clock; on this host its process must exist, too. A
    triggerer tells when its loop last looked for work.
    """
    if job.host_id == host_id() and not is_alive(job.pid, job.pid_start):
        return "its process is gone"
    if job.lapsed:
        return f"it has not renewed its lease for {job.lease_age / SECOND:.0f} s"
    look_age = _detail(job).get("look_age_s")
    if isinstance(look_age, int | float) and look_age > _WEDGED_S:
        return f"it is stuck: it last looked for work {look_age:.0f} s ago"
    return None


def _detail(job: Any) -> dict[str, Any]:
    found = msgspec.json.decode(job.detail or "{}")
    return found if isinstance(found, dict) else {}


@click.command("list", cls=Command)
@click.option("--kind", "--job-type", type=_KINDS, help="Only these.")
@click.option("--hostname", help="Only on this host.")
@output_option
def list_(kind: str | None, hostname: str | None, output: str) -> None:
    """List the daemons that have not ended, and whether they are well."""
    with reading() as (_, tx):
        found = _select(listing.open_jobs(tx), kind, hostname)
    rows = [
        {
            **job._asdict(),
            "started_at": iso(job.started_at),
            "lease_age_s": round(job.lease_age / SECOND, 1),
            "trouble": ailment(job),
            "healthy": ailment(job) is None,
            "detail": _detail(job),
        }
        for job in found
    ]
    if output in ("table", "plain"):
        for row in rows:
            row["detail"] = ", ".join(f"{name}={value}" for name, value in row["detail"].items())
    emit(rows, _COLUMNS, output)


def _select(found: list[Any], kind: str | None, hostname: str | None) -> list[Any]:
    return [job for job in found if kind in (None, job.kind) and hostname in (None, job.hostname)]


@click.command(cls=Command)
@click.option("--kind", "--job-type", type=_KINDS, help="Only these.")
@click.option("--hostname", help="Only on this host.")
@click.option("--local", is_flag=True, help="Only on the host where this runs.")
@click.option(
    "--limit", type=click.IntRange(0), default=1, show_default=True,
    help="Look at so many, the newest; 0: at all.",
)  # fmt: skip
@click.option("--allow-multiple", is_flag=True, help="Several may be well; needs --limit.")
@click.pass_context
def check(
    ctx: click.Context,
    kind: str | None,
    hostname: str | None,
    local: bool,
    limit: int,
    allow_multiple: bool,
) -> None:
    """Exit with 1 unless a daemon is well: its lease runs, and on this host its process exists.

    A triggerer must also have looked for work in the last 30 s. What is wrong is one line.
    """
    if allow_multiple and limit == 1:
        raise click.UsageError("--allow-multiple needs --limit 0, or more than 1")
    if local and hostname is not None:
        raise click.UsageError("give --hostname or --local, not both")
    with reading() as (_, tx):
        found = _select(listing.open_jobs(tx), kind, socket.gethostname() if local else hostname)
    found = sorted(found, key=lambda job: (ailment(job) is None, job.id), reverse=True)
    found = found[: limit or None]
    well = [job for job in found if ailment(job) is None]
    what = kind or "daemon"
    if not found:
        where = f" on {hostname}" if hostname else ""
        _fail(ctx, f"no {what} is running{where}: start `roost {kind or 'standalone'}`")
    elif not well:
        job = found[0]
        name = f"{job.kind} {job.hostname}:{job.pid} (job {job.id})"
        _fail(ctx, f"{name}: {ailment(job)}")
    elif len(well) > 1 and not allow_multiple:
        _fail(ctx, f"{len(well)} {what}s are well, where one was expected: --allow-multiple")
    else:
        names = ", ".join(f"{job.kind} {job.hostname}:{job.pid}" for job in well)
        click.echo(f"well: {names}")


def _fail(ctx: click.Context, text: str) -> None:
    click.echo(f"roost: {text}", err=True)
    ctx.exit(1)
