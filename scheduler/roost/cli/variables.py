"""``roost variables``: settings that all DAGs share (S59-S62)."""

from __future__ import annotations

import json
from typing import Any

import click

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, output_option
from roost.cli.secret_files import (
    env_text,
    from_stdin,
    parse_env,
    read_object,
    read_text,
    strip_prefix,
    write_private,
)
from roost.cli.session import database, reading
from roost.cli.words import not_found, warn_of_shadow
from roost.dag.environ import lookup
from roost.exceptions import DecryptionError, RoostException
from roost.models.engine import Tx, transact
from roost.models.queries.variables import (
    delete_variable,
    get_variable,
    list_variables,
    set_variable,
)
from roost.support.crypto import keyring_of
from roost.support.masking import MASK, is_sensitive, mask_value, use_names

__all__ = ["delete", "export", "get", "import_", "list_", "set_", "variables"]

_COMMANDS = {
    "list": Lazy("roost.cli.variables:list_", "List the Variables."),
    "get": Lazy("roost.cli.variables:get", "Print the value of a Variable."),
    "set": Lazy("roost.cli.variables:set_", "Create a Variable, or change one."),
    "delete": Lazy("roost.cli.variables:delete", "Delete a Variable."),
    "import": Lazy("roost.cli.variables:import_", "Read Variables from a file."),
    "export": Lazy("roost.cli.variables:export", "Write all Variables to a file."),
}
_COLUMNS = ("key", "value", "description", "is_encrypted")


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def variables() -> None:
    """List, change, import and export Variables."""


def _shown(key: str, value: str, show: bool) -> str:
    """A value as a listing may show it: hidden by its name, or by names in its JSON."""
    if show:
        return value
    if is_sensitive(key):
        return MASK
    if value[:1] in ("{", "["):
        try:
            return json.dumps(mask_value(json.loads(value)), ensure_ascii=False)
        except ValueError:
            return value
    return value


@click.command("list", cls=Command)
@click.option("--show-secrets", is_flag=True, help="Show what has a sensitive name, too.")
@output_option
def list_(show_secrets: bool, output: str) -> None:
    """List the Variables.

    A value whose name is sensitive (password, token, …, security.sensitive_names) is shown as ***.
    A value that cannot be decrypted is empty, and an error line names it.
    """
    rows: list[dict[str, Any]] = []
    with reading() as (config, tx):
        use_names(config.security.sensitive_names)
        keys = keyring_of(config)
        for row in list_variables(tx):
            try:
                value = _shown(row.key, row.plain(keys), show_secrets)
            except DecryptionError as error:
                click.echo(f"roost: {error}", err=True)
                value = None
            rows.append({**row._asdict(), "value": value, "is_encrypted": bool(row.is_encrypted)})
    emit(rows, _COLUMNS, output)


@click.command(cls=Command)
@click.argument("key")
@click.option("-d", "--default", help="Printed when there is no such Variable.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Check that it is JSON; indent it.")
def get(key: str, default: str | None, as_json: bool) -> None:
    """Print the value of a Variable.

    ROOST_VAR_KEY or AIRFLOW_VAR_KEY in the environment is looked at first, as a task does.
    """
    value = lookup("VAR", key)
    if value is None:
        with reading() as (config, tx):
            value = get_variable(tx, key, keyring_of(config))
            if value is None and default is None:
                known = [row.key for row in list_variables(tx)]
                raise not_found("Variable", key, known, "`roost variables list` shows them")
    if value is None:
        click.echo(default)
        return
    if as_json:
        try:
            value = json.dumps(json.loads(value), indent=2, ensure_ascii=False)
        except ValueError as error:
            raise RoostException(f"Variable {key!r} is not JSON: {error}") from None
    click.echo(value)


@click.command("set", cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("value", callback=from_stdin)
@click.option("--description", help="What it is for; by default the one it has.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Refuse a value that is not JSON.")
def set_(key: str, value: str, description: str | None, as_json: bool) -> None:
    """Create a Variable, or change one.

    VALUE - is read from standard input, so that no process list shows it.
    """
    if not key.strip():
        raise click.UsageError("a Variable needs a key")
    if as_json:
        try:
            json.loads(value)
        except ValueError as error:
            raise click.UsageError(f"the value is not JSON: {error}") from None
    with database() as (config, engine):
        keys = keyring_of(config)
        transact(engine, lambda tx: set_variable(tx, key, value, keys, description))
    click.echo(f"Variable {key} set")
    warn_of_shadow("VAR", key)


@click.command(cls=Command)
@click.argument("key")
def delete(key: str) -> None:
    """Delete a Variable."""
    with database() as (_, engine):

        def step(tx: Tx) -> None:
            if not delete_variable(tx, key):
                known = [row.key for row in list_variables(tx)]
                raise not_found("Variable", key, known, "`roost variables list` shows them")

        transact(engine, step)
    click.echo(f"Variable {key} deleted")


@click.command("import", cls=Command)
@click.argument("file")
@click.option(
    "-a",
    "--action-on-existing-key",
    "action",
    type=click.Choice(["overwrite", "fail", "skip"]),
    default="overwrite",
    show_default=True,
    help="What to do with a key that there is already.",
)
@click.option(
    "--file-format", type=click.Choice(["json", "env"]), help="By default by the file's name."
)
def import_(file: str, action: str, file_format: str | None) -> None:
    """Read Variables from a file.

    A JSON object of keys to values, where a value that is not a text is kept as JSON and
    {"value": …, "description": …} sets a description too; or a .env file of ROOST_VAR_KEY=value or
    AIRFLOW_VAR_KEY=value (the key in lower case) or KEY=value. All or nothing. FILE - is standard
    input.
    """
    text = read_text(file)
    if (file_format or ("env" if file.endswith(".env") else "json")) == "env":
        given: dict[str, Any] = {
            strip_prefix(name, "VAR"): value for name, value in parse_env(file, text).items()
        }
    else:
        given = read_object(file, text)
    with database() as (config, engine):
        keys = keyring_of(config)

        def step(tx: Tx) -> tuple[int, int]:
            there = {row.key for row in list_variables(tx)} & given.keys()
            if there and action == "fail":
                names = ", ".join(sorted(there))
                raise RoostException(f"nothing was imported: there is already {names}")
            wanted = [key for key in given if action != "skip" or key not in there]
            for key in wanted:
                value, description = _imported(given[key])
                set_variable(tx, key, value, keys, description)
            return len(wanted), len(given) - len(wanted)

        done, left = transact(engine, step)
    click.echo(f"{done} Variables imported" + (f", {left} skipped" if left else ""))


def _imported(value: Any) -> tuple[str, str | None]:
    """Value and description of an entry; Airflow writes both where there is a description."""
    description = None
    if isinstance(value, dict) and set(value) == {"value", "description"}:
        value, description = value["value"], str(value["description"] or "")
    return value if isinstance(value, str) else json.dumps(value), description


@click.command(cls=Command)
@click.argument("file")
@click.option(
    "--file-format", type=click.Choice(["json", "env"]), help="By default by the file's name."
)
def export(file: str, file_format: str | None) -> None:
    """Write all Variables to a file.

    With their values in plain text, readable by you alone; what `roost variables import` reads.
    FILE - is standard output.
    """
    with reading() as (config, tx):
        keys = keyring_of(config)
        rows = [(row, row.plain(keys)) for row in list_variables(tx)]
    if (file_format or ("env" if file.endswith(".env") else "json")) == "env":
        for row, _ in rows:
            if strip_prefix(f"ROOST_VAR_{row.key.upper()}", "VAR") != row.key:
                raise RoostException(
                    f"Variable {row.key!r} cannot be told by a name in upper case; export to JSON"
                )
        text = env_text({f"ROOST_VAR_{row.key.upper()}": value for row, value in rows})
    else:
        values = {row.key: _exported(value, row.description) for row, value in rows}
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_private(file, text, f"{len(rows)} Variables")


def _exported(value: str, description: str) -> Any:
    return {"value": value, "description": description} if description else value
