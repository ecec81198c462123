"""``roost metrics``: what the daemons tell statsd."""

from __future__ import annotations

import click

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, output_option
from roost.support.config import load_config
from roost.support.metrics import METRICS, exporter_name

__all__ = ["list_", "metrics"]

_COMMANDS = {"list": Lazy("roost.cli.metrics:list_", "List every metric.")}
_COLUMNS = ("name", "kind", "unit", "prometheus", "help")


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def metrics() -> None:
    """Ask what the daemons tell statsd."""


@click.command("list", cls=Command)
@output_option
def list_(output: str) -> None:
    """List every metric.

    prometheus: what our statsd_exporter mapping calls it.
    """
    prefix = load_config().statsd.prefix
    rows = [
        {
            "name": metric.name,
            "kind": metric.kind,
            "unit": metric.unit,
            "prometheus": exporter_name(metric, prefix),
            "help": metric.help,
        }
        for metric in METRICS
    ]
    emit(rows, _COLUMNS, output)
