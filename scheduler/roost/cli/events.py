"""``roost events``: tell waiting tasks what has happened outside."""

from __future__ import annotations

import getpass
import socket
import time
from typing import Any, NamedTuple

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, iso, output_option
from roost.cli.paging import Pages, limit_option
from roost.cli.secret_files import from_stdin, read_text
from roost.cli.session import database, ring
from roost.cli.words import duration_of
from roost.exceptions import ConfigError, DecryptionError, NotFound, RoostException
from roost.models.engine import Tx, read, transact
from roost.models.queries import external, listing
from roost.models.queries.external import NewEvent, Told
from roost.support.clock import SECOND, now_us
from roost.support.crypto import Keyring, keyring_of
from roost.support.event_keys import check_key
from roost.support.event_payload import payload_of
from roost.support.event_tokens import make_token, url_base, url_of
from roost.support.masking import MASK

__all__ = ["delete", "events", "list_", "send", "token"]

_COMMANDS = {
    "send": Lazy("roost.cli.events:send", "Send an event to the tasks that wait for its key."),
    "list": Lazy("roost.cli.events:list_", "List the events that were sent, newest first."),
    "delete": Lazy("roost.cli.events:delete", "Delete an event, or all events of a key."),
    "token": Lazy("roost.cli.events:token", "Print a URL that sends one event, once."),
}
_COLUMNS = (
    "id", "key", "state", "expires_at", "sender", "created_at", "taken_at", "woken", "payload",
)  # fmt: skip
_SOON_S = 2.0
_STEP_S = 0.02


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def events() -> None:
    """Tell waiting tasks what has happened outside."""


class _Seen(NamedTuple):
    """An event, how many of its key were sent before and are kept, how many wait for that, and
    whether a triggerer lives.
    """

    event: Told | None
    ahead: int
    waiting: int
    triggerer: bool


@click.command(cls=Command)
@click.argument("key")
@click.option("--payload", callback=from_stdin, help="JSON; - reads standard input.")
@click.option("--payload-file", help="A file of JSON; - is standard input.")
@click.option(
    "--expires-in",
    callback=duration_of,
    help="How long it is kept while nobody waits, e.g. 90s, 15m, 2h, 7d; by default "
    "triggerer.event_retention.",
)
@click.option(
    "--wait", callback=duration_of, help="Wait so long for it to wake somebody; else exit code 1."
)
@click.pass_context
def send(
    ctx: click.Context,
    key: str,
    payload: str | None,
    payload_file: str | None,
    expires_in: int | None,
    wait: int | None,
) -> None:
    """Send an event to the tasks that wait for its key.

    All of them are woken, with the payload as their event. While nobody waits it is kept, and the
    first to wait takes it. The payload is encrypted at rest.
    """
    check_key(key)
    if payload is not None and payload_file is not None:
        raise click.UsageError("give --payload or --payload-file, not both")
    given = payload if payload_file is None else read_text(payload_file)
    if given is not None and not given.strip():
        raise RoostException("the payload is empty: leave it out, or give null, to send none")
    text = payload_of("null" if given is None else given)
    with database() as (config, engine):
        sealed = keyring_of(config).encrypt(text)
        retention = round(config.triggerer.event_retention * SECOND)
        event = NewEvent(key, sealed, _sender(), expires_in or retention)
        event_id = transact(engine, lambda tx: external.send(tx, event))
        assert event_id is not None, "without a token nothing can refuse it"  # noqa: S101
        try:
            ring(config, engine, "triggerer")
            seen = _watch(engine, event_id, key, wait)
        except (OSError, SQLAlchemyError) as error:  # it is stored: nobody shall send it twice
            what = " ".join(str(getattr(error, "orig", None) or error).split())
            click.echo(
                f"event {event_id} of {key!r} is stored; what became of it is unknown: {what}"
            )
            ctx.exit(0 if wait is None else 1)
    click.echo(f"event {event_id} of {key!r} {_fate(seen)}")
    taken = seen.event is None or seen.event.taken_at is not None
    ctx.exit(1 if wait is not None and not taken else 0)


def _sender() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this uid
        user = "?"
    return f"{user}@{socket.gethostname()}"[:250]


def _watch(engine: Engine, event_id: int, key: str, wait: int | None) -> _Seen:
    """See what becomes of an event; a moment is enough where somebody waits and somebody looks."""
    began = time.monotonic()
    while True:
        seen = _look(engine, event_id, key)
        taken = seen.event is None or seen.event.taken_at is not None
        if wait is not None:
            over = time.monotonic() - began >= wait / SECOND
        else:
            over = not (seen.waiting and seen.triggerer) or time.monotonic() - began >= _SOON_S
        if taken or over:
            return seen
        time.sleep(_STEP_S)


def _look(engine: Engine, event_id: int, key: str) -> _Seen:
    with read(engine) as tx:
        # First who waits: a task that is woken in between has left its mark on the event then.
        waiting = external.waiting(tx, key)
        event = external.told(tx, event_id)
        lives = any(job.kind == "triggerer" for job in listing.live_jobs(tx))
        ahead = external.ahead(tx, key, event_id)
    return _Seen(event, ahead, waiting, lives)


def _fate(seen: _Seen) -> str:
    event = seen.event
    if event is None:
        return "was deleted by somebody"
    if event.taken_at is not None:
        return f"woke {event.woken} waiting task{'' if event.woken == 1 else 's'}"
    until = f"is kept until {iso(event.expires_at)}"
    if not seen.waiting:
        are = "is" if seen.ahead == 1 else "are"
        first = f"; {seen.ahead} sent earlier {are} taken first" if seen.ahead else ""
        return f"{until}: nobody waits for it yet{first}"
    if not seen.triggerer:
        return f"{until} for {seen.waiting} waiting: no triggerer is running, `roost triggerer`"
    return f"{until}: a triggerer is about to wake {seen.waiting} waiting"


@click.command("list", cls=Command)
@click.argument("key", required=False)
@click.option("--state", type=click.Choice(external.STATES), help="Only in this state.")
@click.option("--show-payload", is_flag=True, help="Show what was sent, which may be secret.")
@limit_option
@output_option
def list_(key: str | None, state: str | None, show_payload: bool, limit: int, output: str) -> None:
    """List the events that were sent, newest first: those of KEY, or all.

    waiting: nobody has waited for it yet; whoever does before expires_at takes it. taken: it woke
    so many. expired: its time was over first. Each is deleted soon after expires_at. deleted: by
    `roost events delete`, or its time was over; of what was sent with a token only this row is
    left, until the token has expired, so that it is not used again.
    """
    with database() as (config, engine):
        keys = keyring_of(config) if show_payload else None
        pages = Pages(
            engine,
            lambda tx, before, most: external.event_rows(tx, key, state, before, most),
            limit,
        )
        emit((_shown(row, keys) for row in pages), _COLUMNS, output)
        pages.tell_rest(
            lambda tx, before: external.event_count(tx, key, state, before), "KEY and --state"
        )


def _shown(row: Any, keys: Keyring | None) -> dict[str, Any]:
    """An event for the listing, its payload hidden where there are no keys."""
    payload: str | None = MASK if row.payload else None
    if keys is not None and row.payload:
        try:
            payload = keys.decrypt(row.payload, f"event {row.id}")
        except DecryptionError as error:
            click.echo(f"roost: {error}", err=True)
            payload = None
    moments = {name: iso(getattr(row, name)) for name in ("created_at", "expires_at", "taken_at")}
    return {**row._asdict(), **moments, "payload": payload}


@click.command(cls=Command)
@click.argument("what", metavar="ID|KEY")
def delete(what: str) -> None:
    """Delete an event, or all events of a key. Tokens that sent them stay used."""

    def step(tx: Tx) -> int:
        deleted = 0
        if what.isdecimal() and len(what) < 19:
            deleted = external.delete(tx, event_id=int(what))
        return deleted or external.delete(tx, key=what)

    with database() as (_, engine):
        deleted = transact(engine, step)
    if not deleted:
        raise NotFound(f"there is no event {what!r}; `roost events list` shows them")
    click.echo(f"{deleted} event{'' if deleted == 1 else 's'} deleted")


@click.command(cls=Command)
@click.argument("key")
@click.option(
    "--expires-in", callback=duration_of, default="1d", show_default=True,
    help="How long it is good, e.g. 90s, 15m, 2h, 7d.",
)  # fmt: skip
@click.option("--bare", is_flag=True, help="Print the token alone, without a URL.")
def token(key: str, expires_in: int, bare: bool) -> None:
    """Print a URL that sends one event, once.

    Whoever has it may POST a JSON body to it: that is the payload of one event of KEY.
    """
    with database() as (config, _):
        made = make_token(keyring_of(config), key, now_us(), expires_in)
        if bare:
            click.echo(made)
            return
        try:
            base = url_base(config)
        except ConfigError as error:
            raise ConfigError(f"{error}; --bare prints a token without it") from None
    click.echo(url_of(base, made))
