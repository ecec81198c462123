"""``roost version`` and ``roost info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from roost.cli.base import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roost.support.config import Config

__all__ = ["info", "version"]


def _version() -> str:
    from importlib.metadata import version as installed  # start-up cost

    return installed("roost")


@click.command(cls=Command)
def version() -> None:
    """Show the version."""
    click.echo(_version())


def _facts(config: Config) -> Iterator[tuple[str, object]]:
    import platform  # start-up cost of `roost version`, as the other imports of this file

    from sqlalchemy import make_url

    yield "version", _version()
    yield "python", platform.python_version()
    yield "platform", platform.platform()
    yield "home", config.home
    yield "config_file", config.file if config.file.exists() else f"{config.file} (none)"
    yield "dags_folder", config.dags_folder
    yield "log_folder", config.log_folder
    yield "executor", config.core.executor
    yield "database", make_url(config.database.url).render_as_string(hide_password=True)
    yield from _database_facts(config)


def _database_facts(config: Config) -> Iterator[tuple[str, object]]:
    from sqlalchemy.exc import DBAPIError

    from roost.cli.session import engine_of
    from roost.exceptions import SchemaError
    from roost.models.engine import read
    from roost.models.queries.listing import live_jobs
    from roost.models.schema import HEAD, require_schema

    engine = engine_of(config)
    try:
        require_schema(engine)
        yield "schema", HEAD
        with read(engine) as tx:
            jobs = live_jobs(tx)
        found = ", ".join(f"{job.kind} {job.hostname}:{job.pid}" for job in jobs)
        yield "daemons", found or "none running"
    except (SchemaError, DBAPIError) as error:
        yield "schema", " ".join(str(getattr(error, "orig", error)).split())
    finally:
        engine.dispose()


@click.command(cls=Command)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml", "plain"]), default="table",
    show_default=True, help="Output format.",
)  # fmt: skip
def info(output: str) -> None:
    """Show what this Roost is and where it runs."""
    from roost.cli.output import emit
    from roost.support.config import load_config

    rows = [{"property": name, "value": str(value)} for name, value in _facts(load_config())]
    emit(rows, ("property", "value"), output)
