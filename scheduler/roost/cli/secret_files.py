"""Files that secrets come from and go to: JSON, ``.env``, ``-`` for standard input and output."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from roost.exceptions import RoostException

__all__ = [
    "env_text",
    "from_stdin",
    "parse_env",
    "read_object",
    "read_text",
    "strip_prefix",
    "write_private",
]

_NAME = re.compile(r"[^\s=#'\"]+")


def from_stdin(_ctx: object, _param: object, value: str | None) -> str | None:
    """Callback of a value that may be ``-``: standard input, so that no process list shows it."""
    if value != "-":
        return value
    return _standard_input().removesuffix("\n").removesuffix("\r")


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise RoostException("standard input is not UTF-8 text") from None


def read_text(path: str) -> str:
    """The text of a file, or of standard input for ``-``.

    Raises:
        RoostException: it cannot be read.
    """
    if path == "-":
        return _standard_input()
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RoostException(f"{path} cannot be read: {reason}") from None


def write_private(path: str, text: str, what: str) -> None:
    """Write secrets to a file that its owner alone may read, and say so; ``-``: standard output.

    Another file of that name is replaced as a whole, never left half written.
    """
    if path == "-":
        click.echo(text, nl=False)
        return
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RoostException(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"wrote {what} to {path} in plain text, readable by you alone (mode 0600)")


def read_object(path: str, text: str) -> dict[str, Any]:
    """The JSON object in a file that was read.

    Raises:
        RoostException: it is none. The text is not shown: it holds secrets.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        hint = "; of YAML only what is JSON too can be read" if path.endswith(_YAML) else ""
        at = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "its text"
        raise RoostException(f"{path} is not JSON, see {at}{hint}") from None
    if not isinstance(value, dict):
        raise RoostException(f"{path} must hold one JSON object, names to values")
    return value


_YAML = (".yaml", ".yml")


def parse_env(path: str, text: str) -> dict[str, str]:
    """The assignments of a ``.env`` file, in order.

    ``NAME=value``, with ``export`` before it or not; a value in quotes may have several lines and
    is read as a shell reads it, any other ends with its line. ``#`` begins a line of comment.

    Raises:
        RoostException: a line is no assignment, or a name comes twice.
    """
    found: dict[str, str] = {}
    for number, name, value in _assignments(path, text.splitlines()):
        if name in found:
            raise RoostException(f"{path}, line {number}: {name} is there twice; keep one")
        found[name] = value
    return found


def _assignments(path: str, lines: list[str]) -> Iterator[tuple[int, str, str]]:
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at].strip().removeprefix("export ").lstrip()
        at += 1
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name):
            raise RoostException(f"{path}, line {number} is no NAME=value")
        value = value.strip()
        if value[:1] in ("'", '"'):
            while True:
                try:
                    words = shlex.split(value)
                    break
                except ValueError:
                    if at == len(lines):
                        raise RoostException(
                            f"{path}, line {number}: the quote of {name} is not closed"
                        ) from None
                    value += "\n" + lines[at]
                    at += 1
            value = " ".join(words)
        yield number, name, value


def env_text(values: Mapping[str, str]) -> str:
    """A ``.env`` file that a shell, systemd and :func:`parse_env` read alike."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def strip_prefix(name: str, kind: str) -> str:
    """The key that ``ROOST_<kind>_<KEY>`` or ``AIRFLOW_<kind>_<KEY>`` stands for, else ``name``."""
    for prefix in (f"ROOST_{kind}_", f"AIRFLOW_{kind}_"):
        if name.startswith(prefix):
            return name.removeprefix(prefix).lower()
    return name
