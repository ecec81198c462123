"""``roost scheduler``, ``triggerer`` and ``worker``: each is one process in the foreground."""

from __future__ import annotations

import click

from roost.cli.base import Command
from roost.support.config import load_config

__all__ = ["queue_names", "scheduler", "triggerer", "worker"]


def queue_names(text: str | None) -> tuple[str, ...] | None:
    """``a,b`` as names; None where the option was not given (S52)."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise click.BadParameter("give one or several queues, e.g. -q default,gpu")
    return names


@click.command(cls=Command)
@click.pass_context
def scheduler(ctx: click.Context) -> None:
    """Run a scheduler."""
    from roost.scheduler.daemon import run_scheduler  # each daemon loads its own part only

    ctx.exit(run_scheduler(load_config()))


@click.command(cls=Command)
@click.option("--capacity", type=click.IntRange(1), help="Instead of triggerer.capacity.")
@click.option("-q", "--queues", help="Comma-separated, instead of triggerer.queues.")
@click.option(
    "--callback-port",
    type=click.IntRange(0, 65535),
    help="Take events by HTTP here, instead of triggerer.callback_port.",
)
@click.option("--callback-host", help="Instead of triggerer.callback_host.")
@click.pass_context
def triggerer(
    ctx: click.Context,
    capacity: int | None,
    queues: str | None,
    callback_port: int | None,
    callback_host: str | None,
) -> None:
    """Run a triggerer."""
    from roost.triggerer.daemon import run_triggerer

    code = run_triggerer(
        load_config(),
        capacity=capacity,
        queues=queue_names(queues),
        callback_port=callback_port,
        callback_host=callback_host,
    )
    ctx.exit(code)


@click.command(cls=Command)
@click.option("-q", "--queues", help="Comma-separated, instead of worker.queues.")
@click.option("-c", "--slots", type=click.IntRange(1), help="Instead of worker.slots.")
@click.pass_context
def worker(ctx: click.Context, queues: str | None, slots: int | None) -> None:
    """Run a worker."""
    from roost.worker.daemon import run_worker

    config = load_config()
    names = queue_names(queues) or config.worker.queues
    ctx.exit(run_worker(config, names, slots or config.worker.slots))
