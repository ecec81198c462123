"""``roost assets`` (H16)."""

from __future__ import annotations

from roost.dag.model import AssetCondition
from tests.cli.seed import Seed, chain


def test_assets_are_listed_detailed_and_told_of(seed: Seed) -> None:
    """H16: who makes and who awaits each; an event by hand; a wrong name and extra in one line."""
    dag = chain("made", "m")
    dag.tasks[0].outlets = ["s3://orders"]
    seed.dags(dag)
    reader = chain("read", "r")
    reader.assets = AssetCondition("asset", "s3://orders")
    seed.dags(reader, fileloc="read.py")
    (row,) = seed.json("assets", "list")
    assert (row["uri"], row["made_by"], row["awaited_by"]) == ("s3://orders", ["made.m"], ["read"])
    said = seed.cli("assets", "emit", "s3://orders", "--extra", '{"rows": 3}').stdout
    assert said == "event of s3://orders stored; awaited by read\n"
    (event,) = seed.json("assets", "details", "s3://orders")
    assert (event["extra"], event["dag_id"]) == ({"rows": 3}, None)
    assert seed.json("assets", "list")[0]["events"] == 1
    wrong = seed.cli("assets", "emit", "s3://order")
    assert wrong.exit_code != 0 and "s3://orders" in wrong.stderr
    assert (
        "--extra must be a JSON object"
        in seed.cli("assets", "emit", "s3://orders", "--extra", "3").stderr
    )
