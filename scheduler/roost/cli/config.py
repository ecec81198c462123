"""``roost config``: every setting, its value and where it came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, output_option
from roost.exceptions import ConfigError
from roost.support.config import home_from, load_config
from roost.support.crypto import KEY_FILE, create_key_file
from roost.support.setting_rows import Setting, all_settings
from roost.support.settings import SECTIONS

__all__ = ["config", "get_value", "init", "list_", "template", "write_template"]

_COMMANDS = {
    "list": Lazy("roost.cli.config:list_", "List every setting and where its value came from."),
    "get-value": Lazy("roost.cli.config:get_value", "Print the value of one setting."),
    "init": Lazy(
        "roost.cli.config:init", "Write a roost.toml that explains every setting, and a key."
    ),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def config() -> None:
    """Show and start the configuration."""


def _shown(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


@click.command("list", cls=Command)
@click.option("--section", type=click.Choice(list(SECTIONS)), help="Only this section.")
@click.option("--doc", is_flag=True, help="Add what each setting means and its default.")
@output_option
def list_(section: str | None, doc: bool, output: str) -> None:
    """List every setting and where its value came from."""
    loaded = load_config()
    rows = []
    for setting in all_settings():
        if section in (None, setting.section):
            value = "***" if setting.secret else _shown(loaded.value(setting.name))
            rows.append(
                {
                    "section": setting.section,
                    "key": setting.key,
                    "value": value,
                    "source": str(loaded.origins[setting.name]),
                    "default": _shown(setting.default),
                    "doc": setting.doc,
                }
            )
    columns = ("section", "key", "value", "source")
    emit(rows, (*columns, "default", "doc") if doc else columns, output)


@click.command("get-value", cls=Command)
@click.argument("section")
@click.argument("key", required=False)
def get_value(section: str, key: str | None) -> None:
    """Print the value of one setting.

    SECTION KEY, or section.key as one word.
    """
    value = _shown(load_config().value(f"{section}.{key}" if key else section))
    if isinstance(value, bool):
        value = str(value).lower()
    click.echo(",".join(value) if isinstance(value, list) else value)


@click.command(cls=Command)
@click.option("--force", is_flag=True, help="Replace a roost.toml that exists; a key never is.")
def init(force: bool) -> None:
    """Write a roost.toml that explains every setting, and a key.

    The key encrypts Variables, Connections and what deferred tasks leave. It is made only if there
    is none: keep a copy of it, what was encrypted cannot be read without it.
    """
    home = home_from(os.environ)
    wrote = write_template(home, force)
    made = create_key_file(home / KEY_FILE) if _needs_key() else False
    if not wrote and not made:
        raise ConfigError(f"{home / 'roost.toml'} exists; edit it, or replace it with --force")
    if wrote:
        click.echo(f"wrote {home / 'roost.toml'}")
    if made:
        click.echo(f"wrote {home / KEY_FILE}, which encrypts what is secret: keep a copy")


def _needs_key() -> bool:
    """Whether no key is set; a roost.toml that is wrong must not stop its replacement."""
    try:
        return not load_config().security.encryption_key
    except ConfigError:
        return False


def write_template(home: Path, force: bool) -> bool:
    """Write ``roost.toml``, for its owner's eyes; False if there is one and ``force`` is not set.

    Raises:
        OSError: the home cannot be written.
    """
    file = home / "roost.toml"
    if file.exists() and not force:
        return False
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    # It may come to hold the database's password.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as out:
        out.write(template())
    return True


def template() -> str:
    """A ``roost.toml`` in which every setting stands as a comment with its default."""
    lines = ["# Roost's configuration. Take the # away from a line to change its value."]
    for section, struct in SECTIONS.items():
        about = " ".join((struct.__doc__ or "").split())
        lines += ["", f"# {about}", f"[{section}]"]
        for setting in all_settings():
            if setting.section == section:
                lines += _commented(setting)
    return "\n".join(lines) + "\n"


def _commented(setting: Setting) -> list[str]:
    return [f"# {setting.doc}", f"# {setting.key} = {_toml(_shown(setting.default))}"]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
