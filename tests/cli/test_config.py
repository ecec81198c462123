"""``roost config``: what is set, by whom, and a file to start from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from roost.cli.config import template
from roost.cli.main import cli
from roost.support.config import load_config
from roost.support.crypto import Keyring, new_key
from roost.support.setting_rows import all_settings


def run(home: Path, *args: str, **env: str) -> Result:
    return CliRunner().invoke(cli, ["config", *args], env={"ROOST_HOME": str(home), **env})


def test_list_tells_every_setting_and_its_source(tmp_path: Path) -> None:
    (tmp_path / "roost.toml").write_text("[core]\nparallelism = 7\n")
    result = run(tmp_path, "list", "-o", "json", ROOST__STATSD__PORT="9125")
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    assert [(row["section"], row["key"]) for row in rows] == [
        (setting.section, setting.key) for setting in all_settings()
    ]
    by_name = {f"{row['section']}.{row['key']}": row for row in rows}
    assert by_name["core.parallelism"]["value"] == 7
    assert by_name["core.parallelism"]["source"] == f"file {tmp_path}/roost.toml"
    assert by_name["statsd.port"]["source"] == "env ROOST__STATSD__PORT"
    assert by_name["worker.queues"]["value"] == ["default"]
    assert by_name["database.url"]["value"] == "***"
    assert by_name["logging.level"]["source"] == "default"


def test_list_with_doc(tmp_path: Path) -> None:
    rows = json.loads(run(tmp_path, "list", "--section", "statsd", "--doc", "-o", "json").stdout)
    assert [row["key"] for row in rows] == ["enabled", "host", "port", "prefix"]
    assert rows[2]["default"] == 8125
    assert rows[2]["doc"] == "UDP port of the statsd server."


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["core", "parallelism"], "32"),
        (["core.parallelism"], "32"),
        (["worker", "queues"], "default"),
        (["core", "dags_are_paused_at_creation"], "false"),
        (["scheduler.poll_interval"], "5.0"),
    ],
)
def test_get_value(tmp_path: Path, args: list[str], value: str) -> None:
    assert run(tmp_path, "get-value", *args).stdout == f"{value}\n"


def test_get_value_of_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, "get-value", "core", "paralelism")
    assert result.exit_code == 2
    assert "did you mean core.parallelism?" in result.stderr


def test_a_wrong_setting_stops_every_command(tmp_path: Path) -> None:
    result = run(tmp_path, "list", ROOST__CORE__PARALLELISM="none")
    assert result.exit_code == 2
    assert result.stderr == (
        "roost: core.parallelism = 'none' in env ROOST__CORE__PARALLELISM is wrong; "
        "give a whole number >= 1\n"
    )


def test_init_writes_a_private_file_and_a_key_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    file, key = home / "roost.toml", home / "encryption.key"
    assert run(home, "init").stdout == (
        f"wrote {file}\nwrote {key}, which encrypts what is secret: keep a copy\n"
    )
    assert file.stat().st_mode & 0o777 == key.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == template()
    first = key.read_text()
    Keyring(file=key).check()
    file.write_text("[core]\n")
    refused = run(home, "init")
    assert refused.exit_code == 2
    assert "exists; edit it, or replace it with --force" in refused.stderr
    assert run(home, "init", "--force").stdout == f"wrote {file}\n"
    assert file.read_text() == template()
    assert key.read_text() == first


def test_init_adds_the_key_that_is_missing_and_keeps_the_file(tmp_path: Path) -> None:
    (tmp_path / "roost.toml").write_text("[core]\nparallelism = 7\n")
    assert run(tmp_path, "init").stdout.startswith(f"wrote {tmp_path}/encryption.key")
    assert (tmp_path / "roost.toml").read_text() == "[core]\nparallelism = 7\n"


def test_init_makes_no_key_beside_one_that_is_set(tmp_path: Path) -> None:
    run(tmp_path, "init", ROOST__SECURITY__ENCRYPTION_KEY=new_key())
    assert not (tmp_path / "encryption.key").exists()


def test_the_key_is_not_listed(tmp_path: Path) -> None:
    key = new_key()
    result = run(tmp_path, "list", "-o", "json", ROOST__SECURITY__ENCRYPTION_KEY=key)
    assert key not in result.stdout
    assert '"***"' in result.stdout


def test_the_template_changes_nothing_and_its_lines_are_the_defaults(tmp_path: Path) -> None:
    home = {"ROOST_HOME": str(tmp_path)}
    plain = load_config(home)
    (tmp_path / "roost.toml").write_text(template())
    assert load_config(home) == plain
    # With the # taken away from every setting, all of them come from the file, unchanged.
    on = re.sub(r"(?m)^# (\w+ = )", r"\1", template())
    (tmp_path / "roost.toml").write_text(on)
    loaded = load_config(home)
    assert {origin.kind for origin in loaded.origins.values()} == {"file"}
    for setting in all_settings():
        assert loaded.value(setting.name) == plain.value(setting.name), setting.name
