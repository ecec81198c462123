"""``roost dags sla-misses`` (S101)."""

from __future__ import annotations

from tests.cli.seed import Seed, chain


def test_s101_misses_are_listed_newest_first(seed: Seed) -> None:
    """S101: task, DAG, logical date, time, and whether somebody was told."""
    seed.dags(chain("a", "x"), chain("b", "x"))
    for dag_id, at in (("a", 1), ("b", 2)):
        seed.sql(
            "INSERT INTO sla_miss (dag_id, task_id, logical_date, timestamp, email_sent) "
            "VALUES (:d, 'x', 0, :at, :yes)",
            d=dag_id,
            at=at * 1_000_000,
            yes=True,
        )
    assert [row["dag_id"] for row in seed.json("dags", "sla-misses")] == ["b", "a"]
    assert seed.json("dags", "sla-misses", "a") == [
        {
            "dag_id": "a",
            "task_id": "x",
            "logical_date": "1970-01-01T00:00:00+00:00",
            "timestamp": "1970-01-01T00:00:01+00:00",
            "email_sent": True,
            "notification_sent": False,
        }
    ]
