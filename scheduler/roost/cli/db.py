"""``roost db``: the schema of the metadata database. Daemons never change it by themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.session import engine_of
from roost.exceptions import SchemaError
from roost.migrations import api
from roost.models import schema
from roost.models.engine import read
from roost.models.queries.listing import live_jobs
from roost.support.config import load_config

__all__ = ["check", "db", "downgrade", "migrate", "reset"]

_COMMANDS = {
    "migrate": Lazy("roost.cli.db:migrate", "Make the schema, or bring it up to date."),
    "check": Lazy("roost.cli.db:check", "Say whether the schema fits; exit code 1 if not."),
    "downgrade": Lazy("roost.cli.db:downgrade", "Take the schema back to an older revision."),
    "reset": Lazy("roost.cli.db:reset", "Drop everything that is stored and start anew."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def db() -> None:
    """Make and migrate the metadata database."""


@contextmanager
def _opened() -> Iterator[tuple[Engine, str]]:
    """An engine that may have any schema or none, and its URL without the password.

    Raises:
        SchemaError: the database cannot be opened.
    """
    engine = engine_of(load_config())
    url = engine.url.render_as_string(hide_password=True)
    try:
        if engine.dialect.name == "sqlite" and engine.url.database:
            os.makedirs(os.path.dirname(engine.url.database) or ".", mode=0o700, exist_ok=True)
        yield engine, url
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise SchemaError(f"{url}: {reason}; check database.url") from error
    finally:
        engine.dispose()


def _said(change: api.Change, url: str) -> str:
    if change.before == change.after:
        return f"{url} is at {change.after or 'no schema'} already"
    return f"{url}: {change.before or 'no schema'} -> {change.after or 'no schema'}"


@click.command(cls=Command)
def migrate() -> None:
    """Make the schema, or bring it up to date."""
    with _opened() as (engine, url):
        click.echo(_said(api.migrate(engine), url))


@click.command(cls=Command)
@click.pass_context
def check(ctx: click.Context) -> None:
    """Say whether the schema fits; exit code 1 if not."""
    engine = engine_of(load_config())
    try:
        schema.require_schema(engine)
        click.echo(f"{engine.url.render_as_string(hide_password=True)} is at {schema.HEAD}")
    except SchemaError as error:
        click.echo(f"roost: {error}", err=True)
        ctx.exit(1)
    finally:
        engine.dispose()


def _refuse_beside_daemons(engine: Engine) -> None:
    """Raises SchemaError while a daemon lives: its tables must not vanish beneath it."""
    with engine.connect() as connection:
        if schema.current_revision(connection) is None:
            return
    with read(engine) as tx:
        jobs = live_jobs(tx)
    if jobs:
        names = ", ".join(f"{job.kind} {job.hostname}:{job.pid}" for job in jobs)
        raise SchemaError(f"daemons are using this database: {names}; stop them first")


@click.command(cls=Command)
@click.option("-r", "--to-revision", "revision", required=True, help="A revision, or `base`.")
@click.option("--yes", is_flag=True, help="Do it; without this it is only said what would be.")
def downgrade(revision: str, yes: bool) -> None:
    """Take the schema back to an older revision.

    What the newer schema added is lost.
    """
    with _opened() as (engine, url):
        if not yes:
            before = api.check(engine).before
            click.echo(f"would take {url} from {before} back to {revision}; say --yes to do it")
            return
        _refuse_beside_daemons(engine)
        click.echo(_said(api.downgrade(engine, revision), url))


@click.command(cls=Command)
@click.option("--yes", is_flag=True, help="Do it; without this it is only said what would be.")
def reset(yes: bool) -> None:
    """Drop everything that is stored and start anew."""
    with _opened() as (engine, url):
        if not yes:
            click.echo(f"would drop every run, task and setting in {url}; say --yes to do it")
            return
        _refuse_beside_daemons(engine)
        api.reset(engine)
        click.echo(f"{url} is empty at {schema.HEAD}")
