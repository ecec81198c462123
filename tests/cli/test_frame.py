"""The frame of the command line: lazy loading, exit codes, one-line errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from roost.cli.base import LazyGroup
from roost.cli.main import cli

_HEAVY = {"sqlalchemy", "alembic", "anyio", "asyncio", "msgspec"}


def walk(group: LazyGroup, path: str = "roost") -> Iterator[tuple[str, str, click.Command]]:
    """Every command below a group: its words, its help in the table, itself."""
    for name, place in group.lazy.items():
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield f"{path} {name}", place.help, command
        if isinstance(command, LazyGroup):
            yield from walk(command, f"{path} {name}")


assert isinstance(cli, LazyGroup)
COMMANDS = list(walk(cli))


@pytest.mark.parametrize(("path", "help_", "command"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_the_table_tells_what_the_command_says_of_itself(
    path: str, help_: str, command: click.Command
) -> None:
    assert command.name == path.split()[-1]
    first = (command.help or "").strip().splitlines()[0]
    assert help_.rstrip(".") in first, "the table's help must begin the command's docstring"
    for param in command.params:
        assert isinstance(param, click.Argument) or getattr(param, "help", None), param.name


@pytest.mark.parametrize("args", [["version"], ["--help"], ["dags", "--help"], ["dgs"]])
def test_what_needs_no_database_loads_none(args: list[str]) -> None:
    code = (
        "import sys; from roost.cli.main import cli\n"
        f"try: cli({args!r})\n"
        f"except SystemExit: print('LOADED', sorted(set(sys.modules) & {_HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("LOADED []\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["dgas"], "No such command 'dgas'. Did you mean 'dags'? See `roost --help`"),
        (["dags", "lst"], "No such command 'lst'. Did you mean 'list'? See `roost dags --help`"),
        (["config", "list", "-o", "jsn"], "Invalid value for '-o' / '--output': 'jsn' is not one"),
        (["tasks", "state", "a"], "Missing argument 'RUN_ID'; see `roost tasks state --help`"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(args: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"roost: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("args", [["dags", "list"], ["scheduler"], ["worker"], ["triggerer"]])
def test_a_missing_schema_is_one_line_without_a_traceback(args: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("roost")), *args],
        env={"ROOST_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"roost: there is no metadata database sqlite:///{tmp_path}/roost.db; "
        "run `roost db migrate`\n"
    )
    assert not (tmp_path / "roost.db").exists()


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    env = {"ROOST_HOME": str(tmp_path)}
    for args in (["dags", "list", "--verbose"], ["--verbose", "dags", "list"]):
        result = CliRunner().invoke(cli, args, env=env)
        assert "Traceback" in result.stderr
    assert "Traceback" not in CliRunner().invoke(cli, ["dags", "list"], env=env).stderr


def test_a_database_that_is_away_is_one_line_without_the_password(tmp_path: Path) -> None:
    env = {
        "ROOST_HOME": str(tmp_path),
        "ROOST__DATABASE__URL": "postgresql://me:secret@127.0.0.1:1/roost",
    }
    result = CliRunner().invoke(cli, ["dags", "list"], env=env)
    assert result.exit_code == 2
    assert "cannot be opened" in result.stderr
    assert "secret" not in result.stderr
    assert result.stderr.count("\n") == 1
