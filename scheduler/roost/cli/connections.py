"""``roost connections``: how to reach external systems, by conn_id (S46-S49)."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, output_option
from roost.cli.secret_files import from_stdin
from roost.cli.session import database, reading
from roost.cli.words import not_found, warn_of_shadow
from roost.dag.connection import Connection
from roost.dag.environ import lookup
from roost.exceptions import DecryptionError, RoostException
from roost.models.engine import Tx, transact
from roost.models.queries import connections as stored
from roost.support import masking
from roost.support.config import Config
from roost.support.crypto import keyring_of
from roost.support.task_requests import ConnectionRecord

__all__ = ["add", "connections", "delete", "get", "list_"]

_COMMANDS = {
    "list": Lazy("roost.cli.connections:list_", "List the Connections."),
    "get": Lazy("roost.cli.connections:get", "Show the Connections of one id."),
    "add": Lazy("roost.cli.connections:add", "Add a Connection."),
    "delete": Lazy("roost.cli.connections:delete", "Delete all Connections of one id."),
    "import": Lazy("roost.cli.connection_files:import_", "Read Connections from a file."),
    "export": Lazy("roost.cli.connection_files:export", "Write all Connections to a file."),
}
_FIELDS = ("conn_id", "conn_type", "host", "port", "login", "password", "schema", "extra")
_COLUMNS = (*_FIELDS, "description", "is_encrypted")


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def connections() -> None:
    """List, change, import and export Connections."""


def _row(record: ConnectionRecord, show: bool) -> dict[str, Any]:
    """A record for a listing: its password hidden, and what is sensitive in its extra."""
    row = msgspec.structs.asdict(record)
    if not show:
        row["password"] = masking.MASK if record.password else record.password
        row["extra"] = _shown_extra(record)
    return row


def _shown_extra(record: ConnectionRecord) -> str | None:
    try:
        extra = Connection(extra=record.extra).extra_dejson
    except RoostException:
        return masking.MASK  # not JSON: nobody knows what in it is secret
    return record.extra and msgspec.json.encode(masking.mask_value(extra)).decode()


def _rows(config: Config, found: list[stored.ConnectionRow], show: bool) -> list[dict[str, Any]]:
    masking.use_names(config.security.sensitive_names)
    keys = keyring_of(config)
    rows = []
    for one in found:
        try:
            record = one.plain(keys)
        except DecryptionError as error:
            click.echo(f"roost: {error}", err=True)
            record = ConnectionRecord(*one[1:-1])
            record.password = record.extra = None
        rows.append({**_row(record, show), "is_encrypted": bool(one.is_encrypted)})
    return rows


@click.command("list", cls=Command)
@click.option("--conn-id", help="Only those of this id.")
@click.option("--show-secrets", is_flag=True, help="Show passwords and all of extra.")
@output_option
def list_(conn_id: str | None, show_secrets: bool, output: str) -> None:
    """List the Connections.

    Those in the environment are not among them. One that cannot be decrypted lacks its password
    and its extra, and an error line names it.
    """
    with reading() as (config, tx):
        found = (
            stored.list_connections(tx) if conn_id is None else stored.get_connections(tx, conn_id)
        )
        rows = _rows(config, found, show_secrets)
    emit(rows, _COLUMNS, output)


@click.command(cls=Command)
@click.argument("conn_id")
@click.option("--show-secrets", is_flag=True, help="Show the password, all of extra and the URI.")
@output_option
def get(conn_id: str, show_secrets: bool, output: str) -> None:
    """Show the Connections of one id.

    ROOST_CONN_ID or AIRFLOW_CONN_ID in the environment hides those in the database, as it does
    for a task. Several of one id are used in turn, at random.
    """
    text = lookup("CONN", conn_id)
    if text is not None:
        rows = [_row(Connection.parse(conn_id, text).as_record(), show_secrets)]
        source = "environment"
    else:
        source = "database"
        with reading() as (config, tx):
            found = stored.get_connections(tx, conn_id)
            if not found:
                raise _no_connection(tx, conn_id)
            rows = _rows(config, found, show_secrets)
    columns = [*_FIELDS, "description", "source"]
    for row in rows:
        row["source"] = source
        if show_secrets:
            fields = {name: row[name] for name in (*_FIELDS, "description")}
            row["uri"] = Connection(**fields).get_uri()
    emit(rows, [*columns, "uri"] if show_secrets else columns, output)


def _no_connection(tx: Tx, conn_id: str) -> Exception:
    known = stored.connection_ids(tx)
    return not_found("Connection", conn_id, known, "`roost connections list` shows them")


_SECRET = "; - reads it from standard input"  # noqa: S105 - a help text
_STDIN = ("conn_uri", "conn_json", "conn_password", "conn_extra")


@click.command(cls=Command)
@click.argument("conn_id")
@click.option("--conn-uri", help=f"All of it as a URI{_SECRET}.")
@click.option("--conn-json", help=f"All of it as a JSON object{_SECRET}.")
@click.option("--conn-type", help="Kind of system, such as postgres.")
@click.option("--conn-host", help="Name or address.")
@click.option("--conn-port", type=click.IntRange(0, 65535), help="TCP port.")
@click.option("--conn-login", help="User.")
@click.option("--conn-password", help=f"Password{_SECRET}.")
@click.option("--conn-schema", help="Database or path.")
@click.option("--conn-extra", help=f"More, as a JSON object{_SECRET}.")
@click.option("--conn-description", help="What it is for.")
@click.option("--duplicate", is_flag=True, help="Add one more to an id that is taken.")
def add(conn_id: str, duplicate: bool, **given: Any) -> None:
    """Add a Connection.

    By --conn-uri, or --conn-json, or its parts. An argument shows in the process list: give a
    secret as - on standard input. Several Connections may share an id; each use then picks one at
    random.
    """
    record = _wanted(conn_id, given)
    with database() as (config, engine):
        keys = keyring_of(config)

        def step(tx: Tx) -> None:
            if stored.get_connections(tx, conn_id) and not duplicate:
                raise RoostException(
                    f"there is a Connection {conn_id!r} already; --duplicate adds another to the "
                    f"same id, `roost connections delete {conn_id}` makes room"
                )
            stored.add_connection(tx, record, keys)

        transact(engine, step)
    click.echo(f"Connection {conn_id} added")
    warn_of_shadow("CONN", conn_id)


def _wanted(conn_id: str, given: dict[str, Any]) -> ConnectionRecord:
    """The connection that the options describe."""
    if not conn_id.strip():
        raise click.UsageError("a Connection needs an id")
    if sum(given[name] == "-" for name in _STDIN) > 1:
        raise click.UsageError("only one of the options can be - : there is one standard input")
    for name in _STDIN:
        if given[name] == "-":
            given[name] = from_stdin(None, None, "-")
    whole = [name for name in ("conn_uri", "conn_json") if given[name] is not None]
    parts = {
        name.removeprefix("conn_"): value
        for name, value in given.items()
        if value is not None and name not in ("conn_uri", "conn_json")
    }
    if not whole and not {"type", "host"} & parts.keys():
        raise click.UsageError("give --conn-uri, --conn-json, --conn-type or --conn-host")
    if len(whole) > 1 or (whole and set(parts) - {"description", "extra"}):
        raise click.UsageError("give either --conn-uri, or --conn-json, or the parts")
    if "extra" in parts:
        _ = Connection(conn_id, extra=parts["extra"]).extra_dejson  # raises when it is no object
    if whole:
        one = Connection.parse(conn_id, given[whole[0]])
    else:
        one = Connection(conn_id, conn_type=parts.pop("type", ""))
    for name, value in parts.items():
        setattr(one, name, value)
    return one.as_record()


@click.command(cls=Command)
@click.argument("conn_id")
def delete(conn_id: str) -> None:
    """Delete all Connections of one id."""
    with database() as (_, engine):

        def step(tx: Tx) -> int:
            deleted = stored.delete_connections(tx, conn_id)
            if not deleted:
                raise _no_connection(tx, conn_id)
            return deleted

        count = transact(engine, step)
    click.echo(f"Connection {conn_id} deleted" + (f", all {count} of them" if count > 1 else ""))
