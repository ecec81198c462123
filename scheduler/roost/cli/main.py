"""``roost``: the table of commands. Importing this loads click and nothing else."""

from __future__ import annotations

import click

from roost.cli.base import Lazy, Root

__all__ = ["cli"]

_COMMANDS = {
    "standalone": Lazy(
        "roost.cli.standalone:standalone", "Run everything on one machine with one command."
    ),
    "scheduler": Lazy("roost.cli.daemons:scheduler", "Run a scheduler."),
    "triggerer": Lazy("roost.cli.daemons:triggerer", "Run a triggerer."),
    "worker": Lazy("roost.cli.daemons:worker", "Run a worker."),
    "dags": Lazy("roost.cli.dags:dags", "List, trigger, pause and test DAGs."),
    "tasks": Lazy("roost.cli.tasks:tasks", "Ask about tasks and their instances."),
    "triggers": Lazy("roost.cli.triggers:triggers", "Ask what deferred tasks wait for."),
    "events": Lazy("roost.cli.events:events", "Tell waiting tasks what has happened outside."),
    "jobs": Lazy("roost.cli.jobs:jobs", "Ask how the daemons are."),
    "assets": Lazy("roost.cli.assets:assets", "What tasks make, and DAGs wait for."),
    "pools": Lazy("roost.cli.pools:pools", "List, change, import and export pools."),
    "variables": Lazy(
        "roost.cli.variables:variables", "List, change, import and export Variables."
    ),
    "connections": Lazy(
        "roost.cli.connections:connections", "List, change, import and export Connections."
    ),
    "rotate-encryption-key": Lazy(
        "roost.cli.rotate:rotate_encryption_key", "Encrypt all secrets anew with the newest key."
    ),
    "rotate-fernet-key": Lazy(
        "roost.cli.rotate:rotate_fernet_key", "Encrypt all secrets anew with the newest key."
    ),
    "db": Lazy("roost.cli.db:db", "Make and migrate the metadata database."),
    "config": Lazy("roost.cli.config:config", "Show and start the configuration."),
    "metrics": Lazy("roost.cli.metrics:metrics", "Ask what the daemons tell statsd."),
    "info": Lazy("roost.cli.about:info", "Show what this Roost is and where it runs."),
    "version": Lazy("roost.cli.about:version", "Show the version."),
}


@click.group(
    "roost", cls=Root, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
def cli() -> None:
    """Roost schedules DAGs of tasks; a task that waits costs nothing."""
