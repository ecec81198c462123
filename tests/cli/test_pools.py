"""Pools by command (S37-S41, H5)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.seed import Seed, chain


def test_list_counts_slots_by_state(seed: Seed) -> None:
    seed.dags(chain("a", "w", "x", "y", "z"))
    key = seed.run("a", "r")
    for task, state in (("w", "running"), ("x", "queued"), ("y", "deferred"), ("z", "scheduled")):
        seed.instance(key, task, state=state, pool_slots=2)
    seed.sql("UPDATE pool SET used = 400")
    assert seed.json("pools", "list") == [
        {
            "pool": "default_pool",
            "slots": 128,
            "include_deferred": False,
            "running": 2,
            "queued": 2,
            "deferred": 2,
            "scheduled": 2,
            "open": 124,
            "description": "Tasks that name no pool",
            "deferred_percent": 0,
        }
    ]


def test_set_creates_and_changes_only_what_is_given(seed: Seed) -> None:
    created = seed.cli("pools", "set", "w", "5", "the warehouse", "--include-deferred")
    assert created.stdout == "pool w created: 5 slots\n"
    assert seed.cli("pools", "set", "w", "6").stdout == "pool w changed: 6 slots\n"
    (row,) = seed.json("pools", "get", "w")
    assert (row["slots"], row["include_deferred"], row["description"]) == (6, True, "the warehouse")
    seed.cli("pools", "set", "w", "-1", "--exclude-deferred")
    (row,) = seed.json("pools", "get", "w")
    assert (row["slots"], row["open"], row["include_deferred"]) == (-1, -1, False)


def test_a_pool_may_shrink_below_what_it_uses(seed: Seed) -> None:
    seed.dags(chain("a", "x", "y"))
    key = seed.run("a", "r")
    for task in ("x", "y"):
        seed.instance(key, task, state="running", pool_slots=3)
    seed.sql("UPDATE pool SET used = 600")
    assert seed.cli("pools", "set", "default_pool", "4").exit_code == 0
    assert seed.json("pools", "get", "default_pool")[0]["open"] == 0
    assert seed.scalar("SELECT used FROM pool") == 600
    assert seed.scalar("SELECT shrinking FROM pool") in (1, True)


def test_including_deferred_counts_them_anew(seed: Seed) -> None:
    seed.dags(chain("a", "w", "x", "y", "z"))
    key = seed.run("a", "r")
    seed.instance(key, "w", state="running")
    seed.instance(key, "x", state="deferred", pool_slots=3)
    seed.instance(key, "y", state="scheduled", next_method="execute_complete", pool_slots=5)
    seed.instance(key, "z", state="scheduled", pool_slots=7)
    seed.cli("pools", "set", "default_pool", "20", "--include-deferred")
    assert seed.scalar("SELECT used FROM pool") == 900
    seed.cli("pools", "set", "default_pool", "20", "--exclude-deferred")
    assert seed.scalar("SELECT used FROM pool") == 100
    seed.cli("pools", "set", "default_pool", "20", "--deferred-percent", "30")
    assert seed.scalar("SELECT used FROM pool") == 100 + 8 * 30
    (row,) = seed.json("pools", "list")
    assert (row["open"], row["include_deferred"], row["deferred_percent"]) == (16, True, 30)
    both = seed.cli("pools", "set", "p", "1", "--deferred-percent", "3", "--include-deferred")
    assert (both.exit_code, "give --deferred-percent, or" in both.stderr) == (2, True)


def test_delete(seed: Seed) -> None:
    """S37: a pool in use stays."""
    seed.cli("pools", "set", "w", "5")
    seed.sql("UPDATE pool SET used = 150 WHERE pool = 'w'")
    assert "1.5 slots of pool w are in use" in seed.cli("pools", "delete", "w").stderr
    seed.sql("UPDATE pool SET used = 0")
    assert seed.cli("pools", "delete", "w").stdout == "pool w deleted\n"
    assert "there is no pool 'w'" in seed.cli("pools", "delete", "w").stderr


def test_default_pool_has_128_slots_can_be_resized_and_not_deleted(seed: Seed) -> None:
    """S38."""
    pools = {row["pool"]: row["slots"] for row in seed.json("pools", "list")}
    assert pools["default_pool"] == 128
    refused = seed.cli("pools", "delete", "default_pool")
    assert refused.exit_code == 2
    assert "cannot be deleted" in refused.stderr
    assert seed.cli("pools", "set", "default_pool", "64").exit_code == 0
    assert seed.json("pools", "get", "default_pool")[0]["slots"] == 64


def test_wrong_slots_are_wrong_usage(seed: Seed) -> None:
    result = seed.cli("pools", "set", "w", "-2")
    assert result.exit_code == 2
    assert "-2 is not in the range -1<=x<=2147483647" in result.stderr


def test_a_pool_needs_a_name(seed: Seed) -> None:
    refused = seed.cli("pools", "set", " ", "1")
    assert refused.exit_code == 2
    assert "a pool needs a name" in refused.stderr
    assert [row["pool"] for row in seed.json("pools", "list")] == ["default_pool"]


def test_s37_export_is_what_import_reads(seed: Seed, tmp_path: Path) -> None:
    seed.cli("pools", "set", "w", "5", "the wärehouse", "--include-deferred")
    seed.cli("pools", "set", "free", "-1")
    before = seed.json("pools", "list")
    file = tmp_path / "pools.json"
    assert seed.cli("pools", "export", str(file)).stdout == f"wrote 3 pools to {file}\n"
    assert json.loads(file.read_text())["w"] == {
        "slots": 5,
        "description": "the wärehouse",
        "include_deferred": True,
        "deferred_percent": 100,
    }
    seed.cli("pools", "delete", "w")
    seed.cli("pools", "set", "default_pool", "1")
    seed.cli("pools", "set", "other", "7")
    done = seed.cli("pools", "import", str(file))
    assert done.stdout == "3 pools imported, 1 of them new\n"
    after = {row["pool"]: row for row in seed.json("pools", "list")}
    assert after.pop("other")["slots"] == 7  # what the file does not name stays
    assert sorted(after.values(), key=lambda row: str(row["pool"])) == sorted(
        before, key=lambda row: str(row["pool"])
    )


def test_s37_import_takes_airflows_shape(seed: Seed) -> None:
    text = '{"w": {"slots": 3, "description": ""}, "x": {"slots": 4}}'
    assert seed.cli("pools", "import", "-", input=text).exit_code == 0
    shown = json.loads(seed.cli("pools", "export", "-").stdout)
    assert {name: pool["slots"] for name, pool in shown.items()} == {
        "default_pool": 128, "w": 3, "x": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"w": {"slots": "x"}}', "pool 'w': Expected `int`, got `str` - at `$.slots`; write"),
        ('{"w": {"slots": -2}}', "pool 'w': Expected `int` >= -1"),
        ('{"ok": {"slots": 1}, "w": {}}', "pool 'w': Object missing required field `slots`"),
        ('{"w": {"slots": 1, "slot": 2}}', "pool 'w': Object contains unknown field `slot`"),
        ('{"w": 5}', "pool 'w': Expected `object`, got `int`"),
        ('{" ": {"slots": 1}}', "a pool's name has 1 to 250 printable characters"),
        ("{}", "- holds no pool"),
        ("[1]", "must hold one JSON object"),
        ("{", "is not JSON, see line 1"),
    ],
)
def test_a_wrong_file_changes_nothing(seed: Seed, text: str, told: str) -> None:
    refused = seed.cli("pools", "import", "-", input=text)
    assert refused.exit_code == 2
    assert told in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert [row["pool"] for row in seed.json("pools", "list")] == ["default_pool"]


@pytest.mark.parametrize(
    ("name", "slots", "told"),
    [
        ("p" * 251, "1", "a pool's name has 1 to 250 printable characters"),
        ("a\x1bb", "1", "a pool's name has 1 to 250 printable characters"),
        ("p", str(2**31), "is not in the range -1<=x<=2147483647"),
    ],
)
def test_s37_what_no_database_holds_is_refused(
    seed: Seed, name: str, slots: str, told: str
) -> None:
    refused = seed.cli("pools", "set", name, slots)
    assert refused.exit_code == 2
    assert told in refused.stderr
