"""Variables by command (S59-S62), encrypted at rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.cli.secret_files import env_text, parse_env
from roost.exceptions import RoostException
from tests.cli.seed import Seed


def test_s60_create_read_update_delete(keyed: Seed) -> None:
    assert keyed.cli("variables", "set", "a", "1", "--description", "first").exit_code == 0
    assert keyed.cli("variables", "get", "a").stdout == "1\n"
    assert keyed.cli("variables", "set", "a", "-2").stdout == "Variable a set\n"
    assert keyed.json("variables", "list") == [
        {"key": "a", "value": "-2", "description": "first", "is_encrypted": True}
    ]
    assert keyed.cli("variables", "delete", "a").stdout == "Variable a deleted\n"
    gone = keyed.cli("variables", "delete", "a")
    assert gone.exit_code == 2
    assert gone.stderr == "roost: there is no Variable 'a'; `roost variables list` shows them\n"


def test_s62_the_value_is_encrypted_at_rest(keyed: Seed) -> None:
    keyed.cli("variables", "set", "a", "canary-7351")
    assert "canary" not in str(keyed.sql("SELECT * FROM variable"))
    assert keyed.scalar("SELECT is_encrypted FROM variable") in (1, True)


def test_a_missing_variable_has_a_default_or_the_nearest_name(keyed: Seed) -> None:
    keyed.cli("variables", "set", "colour", "x")
    assert keyed.cli("variables", "get", "none", "-d", "").stdout == "\n"
    missing = keyed.cli("variables", "get", "color")
    assert missing.exit_code == 2
    assert missing.stderr == "roost: there is no Variable 'color'; did you mean 'colour'?\n"


def test_json_is_checked(keyed: Seed) -> None:
    refused = keyed.cli("variables", "set", "j", "{", "--json")
    assert refused.exit_code == 2
    assert "the value is not JSON" in refused.stderr
    keyed.cli("variables", "set", "j", '{"a":[1]}', "--json")
    assert json.loads(keyed.cli("variables", "get", "j", "--json").stdout) == {"a": [1]}
    keyed.cli("variables", "set", "t", "text")
    assert "Variable 't' is not JSON" in keyed.cli("variables", "get", "t", "-j").stderr


def test_a_value_comes_from_standard_input(keyed: Seed) -> None:
    keyed.cli("variables", "set", "a", "-", input="two\nlines\n")
    assert keyed.cli("variables", "get", "a").stdout == "two\nlines\n"


def test_s48_the_environment_comes_first_and_a_shadow_is_told(keyed: Seed) -> None:
    told = keyed.cli("variables", "set", "a", "database", AIRFLOW_VAR_A="env")
    assert told.exit_code == 0
    assert told.stderr.startswith("roost: the environment has ROOST_VAR_A or AIRFLOW_VAR_A")
    assert told.stderr.count("\n") == 1
    assert keyed.cli("variables", "get", "a", AIRFLOW_VAR_A="env").stdout == "env\n"
    assert keyed.cli("variables", "get", "a").stdout == "database\n"


def test_without_a_key_plain_rows_are_read_and_nothing_is_written(seed: Seed) -> None:
    seed.sql("INSERT INTO variable (key, value) VALUES ('old', 'plain')")
    assert seed.cli("variables", "get", "old").stdout == "plain\n"
    refused = seed.cli("variables", "set", "new", "x")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "roost: there is no encryption key; `roost config init` makes one, or set "
        "security.encryption_key where this runs\n"
    )
    assert seed.scalar("SELECT count(*) FROM variable") == 1


def test_a_wrong_key_names_the_row_and_others_are_readable(keyed: Seed) -> None:
    keyed.cli("variables", "set", "old", "x")
    keyed.env["ROOST__SECURITY__ENCRYPTION_KEY"] = "A" * 43 + "="
    keyed.cli("variables", "set", "new", "y")
    refused = keyed.cli("variables", "get", "old")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("roost: Variable 'old' cannot be decrypted")
    listed = keyed.cli("variables", "list", "-o", "json")
    assert listed.exit_code == 0
    assert [row["value"] for row in json.loads(listed.stdout)] == ["y", None]
    assert listed.stderr.count("Variable 'old' cannot be decrypted") == 1
    exported = keyed.cli("variables", "export", "-")
    assert exported.exit_code == 2
    assert "'old'" in exported.stderr


def test_listings_hide_what_is_sensitive(keyed: Seed) -> None:
    for key, value in (
        ("db_password", "canary"),
        ("my_pin", "canary"),
        ("conf", '{"api_key": "canary", "list": [{"token": ["canary"]}], "n": 1}'),
        ("plain", "seen"),
    ):
        keyed.cli("variables", "set", key, value)
    names = {"ROOST__SECURITY__SENSITIVE_NAMES": "pin"}
    listed = keyed.cli("variables", "list", "-o", "json", **names)
    assert "canary" not in listed.stdout
    assert {row["key"]: row["value"] for row in json.loads(listed.stdout)} == {
        "conf": '{"api_key": "***", "list": [{"token": "***"}], "n": 1}',
        "db_password": "***",
        "my_pin": "***",
        "plain": "seen",
    }
    assert keyed.cli("variables", "list", "--show-secrets", **names).stdout.count("canary") == 4


def test_s60_import_of_json(keyed: Seed, tmp_path: Path) -> None:
    file = tmp_path / "v.json"
    entries = {"a": "text", "n": 5, "d": {"x": [1]}, "e": {"value": "v", "description": "about"}}
    file.write_text(json.dumps(entries))
    assert keyed.cli("variables", "import", str(file)).stdout == "4 Variables imported\n"
    rows = {
        row["key"]: (row["value"], row["description"]) for row in keyed.json("variables", "list")
    }
    assert rows == {
        "a": ("text", ""),
        "n": ("5", ""),
        "d": ('{"x": [1]}', ""),
        "e": ("v", "about"),
    }


@pytest.mark.parametrize(
    ("action", "code", "a", "b"),
    [("overwrite", 0, "2", "2"), ("skip", 0, "1", "2"), ("fail", 2, "1", None)],
)
def test_s60_import_and_keys_that_exist(
    keyed: Seed, action: str, code: int, a: str, b: str | None
) -> None:
    keyed.cli("variables", "set", "a", "1")
    done = keyed.cli("variables", "import", "-", "-a", action, input='{"b": "2", "a": "2"}')
    assert done.exit_code == code
    rows = {row["key"]: row["value"] for row in keyed.json("variables", "list")}
    assert (rows["a"], rows.get("b")) == (a, b)
    assert code == 0 or done.stderr == "roost: nothing was imported: there is already a\n"


@pytest.mark.parametrize("name", ["v.json", "v.env"])
def test_export_is_what_import_reads(keyed: Seed, tmp_path: Path, name: str) -> None:
    values = {
        "a": "1",
        "multi": 'it\'s\ntwo $lines # "here"',
        "j": '{"value": 1, "description": 2}',
    }
    for key, value in values.items():
        keyed.cli("variables", "set", key, value)
    file = tmp_path / name
    file.write_text("old")
    file.chmod(0o644)
    done = keyed.cli("variables", "export", str(file))
    assert (
        done.stdout
        == f"wrote 3 Variables to {file} in plain text, readable by you alone (mode 0600)\n"
    )
    assert file.stat().st_mode & 0o777 == 0o600
    keyed.sql("DELETE FROM variable")
    assert keyed.cli("variables", "import", str(file)).exit_code == 0
    assert {row["key"]: row["value"] for row in keyed.json("variables", "list")} == values
    assert sorted(path.name for path in tmp_path.iterdir() if "v." in path.name) == [name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must hold one JSON object"),
        ("{canary", "is not JSON, see line 1"),
        ("\udcff", "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    keyed: Seed, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "v.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    refused = keyed.cli("variables", "import", str(file))
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "canary" not in refused.stderr


def test_env_files() -> None:
    text = """
# comment
ROOST_VAR_A=plain # not a comment
export AIRFLOW_VAR_B='single $x'
C="double
lines"
"""
    assert parse_env("f", text) == {
        "ROOST_VAR_A": "plain # not a comment",
        "AIRFLOW_VAR_B": "single $x",
        "C": "double\nlines",
    }
    for wrong, message in (
        ("no assignment", "line 1 is no NAME=value"),
        ("A=1\nA=2", "line 2: A is there twice"),
        ("A='x", "the quote of A is not closed"),
    ):
        with pytest.raises(RoostException, match=message):
            parse_env("f", wrong)


# What a line break is differs between readers; a file's are \n.
values = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], include_characters="\n\t")
)


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,5}", fullmatch=True), values))
def test_env_round_trip(given: dict[str, str]) -> None:
    assert parse_env("f", env_text(given)) == given


@pytest.mark.parametrize("key", [" ", "k" * 251])
def test_a_key_that_cannot_be_stored(keyed: Seed, key: str) -> None:
    refused = keyed.cli("variables", "set", key, "x")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
