"""The reference parts of docs/cli.md, configuration.md and operators.md, made from the code.

``python -m tests.support.reference`` writes it; the suite fails while the pages differ from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from roost.cli.base import LazyGroup
from roost.cli.main import cli
from roost.support.setting_rows import all_settings
from roost.support.settings import SECTIONS
from tests.support.operator_reference import operator_reference

__all__ = ["PAGES", "commands", "expected"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARKER = "<!-- What follows is made by `python -m tests.support.reference`; do not edit. -->"


def commands(
    group: click.Command = cli, path: str = "roost"
) -> Iterator[tuple[str, click.Command]]:
    """Every command that is not a group, with its words, in the order of ``--help``."""
    if not isinstance(group, LazyGroup):
        yield path, group
        return
    for name in group.lazy:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield from commands(command, f"{path} {name}")


def cli_reference() -> str:
    """A section for each command, with its options and arguments."""
    return "\n".join(section for path, command in commands() for section in _section(path, command))


def _section(path: str, command: click.Command) -> Iterator[str]:
    words = [_argument(param) for param in command.params if isinstance(param, click.Argument)]
    yield f"### `{' '.join([path, *words])}`\n"
    paragraphs = (command.help or "").strip().split("\n\n")
    yield "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs) + "\n"
    options = [param for param in command.params if isinstance(param, click.Option)]
    rows = [_option(option) for option in options if option.name != "verbose"]
    if rows:
        yield "\n".join(["| option | meaning |", "|---|---|", *rows]) + "\n"


def _argument(param: click.Argument) -> str:
    name = (param.name or "").upper()
    return name if param.required else f"[{name}]"


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    values = ""
    if isinstance(option.type, click.Choice):
        values = " " + ", ".join(f"`{value}`" for value in option.type.choices) + "."
    default = option.default
    shown = f" Default `{default}`." if option.show_default and default is not None else ""
    return f"| {names} | {option.help}{values}{shown} |"


def configuration_reference() -> str:
    """A table for each section of roost.toml."""
    return "\n".join(part for name in SECTIONS for part in _settings(name))


def _settings(section: str) -> Iterator[str]:
    yield f"### `[{section}]`\n"
    yield " ".join((SECTIONS[section].__doc__ or "").split()) + "\n"
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for setting in all_settings():
        if setting.section == section:
            default = setting.default
            text = ",".join(default) if isinstance(default, tuple) else str(default)
            text = text.lower() if isinstance(default, bool) else text
            secret = " Secret." if setting.secret else ""
            shown = f"`{text}`" if text else "(empty)"
            rows.append(
                f"| `{setting.key}` | {setting.expects} | {shown} | {setting.doc}{secret} |"
            )
    yield "\n".join(rows) + "\n"


PAGES = {
    "cli.md": cli_reference,
    "configuration.md": configuration_reference,
    "operators.md": operator_reference,
}


def expected(page: str) -> tuple[str, str]:
    """A page as it is, and as it should be: the same head, the reference made anew."""
    text = (DOCS / page).read_text()
    head, _, _ = text.partition(MARKER)
    return text, f"{head}{MARKER}\n\n{PAGES[page]()}"


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / name).write_text(expected(name)[1])
