"""``roost connections import`` and ``export``: JSON, and ``.env`` with URIs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from roost.cli.base import Command
from roost.cli.secret_files import (
    env_text,
    parse_env,
    read_object,
    read_text,
    strip_prefix,
    write_private,
)
from roost.cli.session import database, reading
from roost.cli.words import warn_of_shadow
from roost.dag.connection import Connection
from roost.exceptions import RoostException
from roost.models.engine import Tx, transact
from roost.models.queries import connections as stored
from roost.support.crypto import keyring_of

__all__ = ["export", "import_"]

_FORMATS = ["json", "yaml", "env"]
_SUFFIXES = {".env": "env", ".yaml": "yaml", ".yml": "yaml"}


def _format(file: str, chosen: str | None) -> str:
    if chosen is not None:
        return chosen
    return next((kind for end, kind in _SUFFIXES.items() if file.endswith(end)), "json")


@click.command("import", cls=Command)
@click.argument("file")
@click.option("--overwrite", is_flag=True, help="Replace the ids that there are already.")
@click.option("--file-format", type=click.Choice(_FORMATS), help="By default by the file's name.")
def import_(file: str, overwrite: bool, file_format: str | None) -> None:
    """Read Connections from a file.

    A JSON object of ids to URIs, objects, or lists of these; or a .env file of ROOST_CONN_ID=URI,
    AIRFLOW_CONN_ID=URI (the id in lower case) or ID=URI. Ids that there are already are left
    alone. All or nothing. FILE - is standard input.
    """
    text = read_text(file)
    if _format(file, file_format) == "env":
        entries = {strip_prefix(key, "CONN"): value for key, value in parse_env(file, text).items()}
    else:
        entries = read_object(file, text)
    given = {conn_id: list(_parsed(conn_id, entry)) for conn_id, entry in entries.items()}
    with database() as (config, engine):
        keys = keyring_of(config)

        def step(tx: Tx) -> list[str]:
            there = set(stored.connection_ids(tx)) & given.keys()
            wanted = [conn_id for conn_id in given if overwrite or conn_id not in there]
            for conn_id in wanted:
                if conn_id in there:
                    stored.delete_connections(tx, conn_id)
                for one in given[conn_id]:
                    stored.add_connection(tx, one.as_record(), keys)
            return [conn_id for conn_id in given if conn_id not in wanted]

        left = transact(engine, step)
    click.echo(f"{len(given) - len(left)} ids imported")
    for conn_id in left:
        click.echo(
            f"roost: there is a Connection {conn_id!r} already, it is left alone; --overwrite "
            "replaces it",
            err=True,
        )
    for conn_id in given:
        warn_of_shadow("CONN", conn_id)


def _parsed(conn_id: str, entry: Any) -> Iterator[Connection]:
    """The connections of an entry: a URI, an object, or a list of these."""
    for one in entry if isinstance(entry, list) else [entry]:
        if isinstance(one, dict):
            yield Connection.parse(conn_id, json.dumps(one))
        elif isinstance(one, str):
            yield Connection.parse(conn_id, one)
        else:
            raise RoostException(
                f"Connection {conn_id!r} must be a URI such as type://login:password@host:port/"
                "schema, an object, or a list of these"
            )


@click.command(cls=Command)
@click.argument("file")
@click.option("--file-format", type=click.Choice(_FORMATS), help="By default by the file's name.")
@click.option(
    "--serialization-format",
    type=click.Choice(["uri", "json"]),
    help="How each is written: by default as a URI in a .env file, else as an object.",
)
def export(file: str, file_format: str | None, serialization_format: str | None) -> None:
    """Write all Connections to a file.

    With their passwords in plain text, readable by you alone; what `roost connections import`
    reads. A URI does not hold the description. FILE - is standard output.
    """
    kind = _format(file, file_format)
    form = serialization_format or ("uri" if kind == "env" else "json")
    with reading() as (config, tx):
        keys = keyring_of(config)
        records = [row.plain(keys) for row in stored.list_connections(tx)]
    found: dict[str, list[Connection]] = {}
    for record in records:
        one = Connection(**{name: getattr(record, name) for name in record.__struct_fields__})
        found.setdefault(record.conn_id, []).append(one)
    if kind == "env":
        text = env_text(dict(_env_entry(id_, ones, form) for id_, ones in found.items()))
    else:
        written = {id_: [_entry(one, form) for one in ones] for id_, ones in found.items()}
        plain = {id_: ones[0] if len(ones) == 1 else ones for id_, ones in written.items()}
        text = _yaml(plain) if kind == "yaml" else _json(plain)
    write_private(file, text, f"{len(records)} Connections")


def _entry(one: Connection, form: str) -> Any:
    return one.get_uri() if form == "uri" else json.loads(one.as_json())


def _env_entry(conn_id: str, ones: list[Connection], form: str) -> tuple[str, str]:
    if len(ones) > 1:
        raise RoostException(
            f"there are {len(ones)} Connections {conn_id!r}, a .env file holds one; export to JSON"
        )
    name = f"ROOST_CONN_{conn_id.upper()}"
    # An id with capitals keeps them only without the prefix.
    name = name if strip_prefix(name, "CONN") == conn_id else conn_id
    return name, ones[0].get_uri() if form == "uri" else ones[0].as_json()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _yaml(value: dict[str, Any]) -> str:
    """YAML of which every entry is JSON, one a line."""
    return "".join(f"{json.dumps(id_)}: {json.dumps(entry)}\n" for id_, entry in value.items())
