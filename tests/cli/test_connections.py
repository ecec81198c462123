"""Connections by command (S46-S49), passwords and extras encrypted at rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.seed import Seed

URI = "postgres://me:canary-1@db.example:5432/wh?token=canary-2&sslmode=on"


def listed(seed: Seed, *args: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = seed.json("connections", "list", *args)
    return rows


def test_s46_add_by_uri_is_encrypted_and_masked(keyed: Seed) -> None:
    assert (
        keyed.cli("connections", "add", "wh", "--conn-uri", URI).stdout == "Connection wh added\n"
    )
    assert "canary" not in str(keyed.sql("SELECT * FROM connection"))
    assert listed(keyed) == [
        {
            "conn_id": "wh",
            "conn_type": "postgres",
            "host": "db.example",
            "port": 5432,
            "login": "me",
            "password": "***",
            "schema": "wh",
            "extra": '{"token":"***","sslmode":"on"}',
            "description": "",
            "is_encrypted": True,
        }
    ]
    for output in ("table", "plain", "yaml"):
        assert "canary" not in keyed.cli("connections", "list", "-o", output).stdout
        assert "canary" not in keyed.cli("connections", "get", "wh", "-o", output).stdout
    (row,) = json.loads(
        keyed.cli("connections", "get", "wh", "--show-secrets", "-o", "json").stdout
    )
    assert (row["password"], row["uri"], row["source"]) == ("canary-1", URI, "database")


def test_an_extra_that_is_not_json_is_hidden_as_a_whole(keyed: Seed) -> None:
    keyed.sql("INSERT INTO connection (conn_id, extra) VALUES ('x', 'canary')")
    assert listed(keyed)[0]["extra"] == "***"


def test_s46_add_by_parts_and_by_json(keyed: Seed) -> None:
    keyed.cli(
        *("connections", "add", "a", "--conn-type", "http", "--conn-host", "https://h"),
        *("--conn-port", "8", "--conn-login", "l", "--conn-password", "-", "--conn-schema", "s"),
        *("--conn-extra", '{"k": 1}', "--conn-description", "about"),
        input="p w\n",
    )
    as_json = '{"conn_type": "mysql", "port": "3306", "extra": {"n": [1]}}'
    keyed.cli("connections", "add", "b", "--conn-json", as_json)
    a, b = listed(keyed, "--show-secrets")
    assert (a["host"], a["port"], a["login"], a["password"]) == ("https://h", 8, "l", "p w")
    assert (a["schema"], a["extra"], a["description"]) == ("s", '{"k": 1}', "about")
    assert (b["conn_type"], b["port"], b["extra"]) == ("mysql", 3306, '{"n": [1]}')


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give --conn-uri, --conn-json, --conn-type or --conn-host"),
        (["--conn-uri", URI, "--conn-host", "h"], "give either --conn-uri, or --conn-json, or"),
        (["--conn-uri", "canary"], "Connection 'x' must be a URI"),
        (["--conn-uri", "pg://u:can#ary@h"], "must be percent-encoded"),
        (["--conn-json", "{canary"], "Connection 'x' is not valid JSON"),
        (["--conn-type", "t", "--conn-extra", "[1]"], "extra is not a JSON object"),
        (["--conn-type", "t", "--conn-port", "70000"], "70000 is not in the range"),
        (["--conn-password", "-", "--conn-extra", "-"], "there is one standard input"),
    ],
)
def test_a_wrong_connection_is_one_line_without_its_secrets(
    keyed: Seed, args: list[str], message: str
) -> None:
    refused = keyed.cli("connections", "add", "x", *args)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "canary" not in refused.stderr
    assert listed(keyed) == []


def test_s47_duplicates_are_added_on_purpose_and_deleted_together(keyed: Seed) -> None:
    keyed.cli("connections", "add", "wh", "--conn-uri", "pg://h1")
    refused = keyed.cli("connections", "add", "wh", "--conn-uri", "pg://h2")
    assert refused.exit_code == 2
    assert "--duplicate adds another" in refused.stderr
    assert (
        keyed.cli("connections", "add", "wh", "--conn-uri", "pg://h2", "--duplicate").exit_code == 0
    )
    assert [row["host"] for row in listed(keyed, "--conn-id", "wh")] == ["h1", "h2"]
    assert len(keyed.json("connections", "get", "wh")) == 2
    assert (
        keyed.cli("connections", "delete", "wh").stdout == "Connection wh deleted, all 2 of them\n"
    )
    gone = keyed.cli("connections", "delete", "wh")
    assert gone.exit_code == 2
    assert gone.stderr == (
        "roost: there is no Connection 'wh'; `roost connections list` shows them\n"
    )


def test_s48_the_environment_comes_first_and_a_shadow_is_told(keyed: Seed) -> None:
    env = {"ROOST_CONN_WH": "mysql://other:canary@h"}
    told = keyed.cli("connections", "add", "wh", "--conn-uri", URI, **env)
    assert "the environment has ROOST_CONN_WH or AIRFLOW_CONN_WH" in told.stderr
    result = keyed.cli("connections", "get", "wh", "-o", "json", **env)
    (row,) = json.loads(result.stdout)
    assert (row["conn_type"], row["source"], row["password"]) == ("mysql", "environment", "***")


def test_without_a_key_nothing_is_written_and_plain_rows_are_read(seed: Seed) -> None:
    seed.sql("INSERT INTO connection (conn_id, host, password) VALUES ('old', 'h', 'p')")
    refused = seed.cli("connections", "add", "new", "--conn-type", "http")
    assert refused.exit_code == 2
    assert "`roost config init` makes one" in refused.stderr
    (row,) = listed(seed, "--show-secrets")
    assert (row["conn_id"], row["password"], row["is_encrypted"]) == ("old", "p", False)


def test_a_wrong_key_names_the_row_and_others_are_readable(keyed: Seed) -> None:
    keyed.cli("connections", "add", "old", "--conn-uri", URI)
    keyed.env["ROOST__SECURITY__ENCRYPTION_KEY"] = "A" * 43 + "="
    keyed.cli("connections", "add", "new", "--conn-uri", URI)
    result = keyed.cli("connections", "list", "-o", "json")
    assert result.exit_code == 0
    new, old = json.loads(result.stdout)
    assert (new["password"], old["password"], old["host"]) == ("***", None, "db.example")
    assert result.stderr.startswith("roost: Connection 'old' cannot be decrypted")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("c.json", []),
        ("c.json", ["--serialization-format", "uri"]),
        ("c.env", []),
        ("c.env", ["--serialization-format", "json"]),
    ],
)
def test_export_is_what_import_reads(
    keyed: Seed, tmp_path: Path, name: str, options: list[str]
) -> None:
    keyed.cli("connections", "add", "wh", "--conn-uri", URI)
    keyed.cli("connections", "add", "Mixed_Case", "--conn-uri", "http://https://u:p%2F@api/v1")
    keyed.cli("connections", "add", "odd", "--conn-type", "x", "--conn-extra", '{"n": [1, "\'"]}')
    if name == "c.json":
        keyed.cli("connections", "add", "wh", "--conn-uri", "pg://other", "--duplicate")
    before = listed(keyed, "--show-secrets")
    file = tmp_path / name
    done = keyed.cli("connections", "export", str(file), *options)
    assert f"Connections to {file} in plain text, readable by you alone" in done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    keyed.sql("DELETE FROM connection")
    assert keyed.cli("connections", "import", str(file)).stdout == "3 ids imported\n"
    assert listed(keyed, "--show-secrets") == before


def test_a_yaml_export_is_json_line_by_line(keyed: Seed) -> None:
    keyed.cli("connections", "add", "wh", "--conn-uri", "pg://h")
    out = keyed.cli("connections", "export", "-", "--file-format", "yaml").stdout
    name, _, entry = out.partition(": ")
    assert json.loads(name) == "wh"
    assert json.loads(entry)["host"] == "h"


def test_duplicates_do_not_fit_into_an_env_file(keyed: Seed) -> None:
    for host in ("h1", "h2"):
        keyed.cli("connections", "add", "wh", "--conn-uri", f"pg://{host}", "--duplicate")
    refused = keyed.cli("connections", "export", "-", "--file-format", "env")
    assert "there are 2 Connections 'wh', a .env file holds one" in refused.stderr


def test_import_leaves_alone_what_there_is_unless_told(keyed: Seed) -> None:
    keyed.cli("connections", "add", "wh", "--conn-uri", "pg://old")
    text = "# airflow\nAIRFLOW_CONN_WH=pg://new\nother=pg://h?x=1#not-a-comment\n"
    done = keyed.cli("connections", "import", "-", "--file-format", "env", input=text)
    assert done.stdout == "1 ids imported\n"
    assert "there is a Connection 'wh' already, it is left alone" in done.stderr
    assert [row["host"] for row in listed(keyed)] == ["h", "old"]
    keyed.cli("connections", "import", "-", "--file-format", "env", "--overwrite", input=text)
    assert [row["host"] for row in listed(keyed)] == ["h", "new"]


@pytest.mark.parametrize("entry", ["5", '"nonsense"', "[5]", '{"port": "x"}'])
def test_a_wrong_entry_stops_the_whole_import(keyed: Seed, entry: str) -> None:
    refused = keyed.cli("connections", "import", "-", input=f'{{"a": "pg://h", "b": {entry}}}')
    assert refused.exit_code == 2
    assert "Connection 'b'" in refused.stderr
    assert listed(keyed) == []
