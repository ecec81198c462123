"""``jobs list`` and ``jobs check``, ``metrics list``."""

from __future__ import annotations

from roost.support.clock import SECOND, now_us
from tests.cli.seed import Seed


def test_check_names_what_is_wrong(seed: Seed) -> None:
    """Exit code 1 and one line: nobody, a process gone, a lease that lapsed, a stuck loop."""
    result = seed.cli("jobs", "check", "--kind", "triggerer")
    assert (result.exit_code, result.stderr) == (
        1,
        "roost: no triggerer is running: start `roost triggerer`\n",
    )
    job = seed.job("triggerer")
    seed.sql("UPDATE job SET lease_until = :at", at=now_us() + 60 * SECOND)
    assert seed.cli("jobs", "check", "--kind", "triggerer").exit_code == 0
    assert seed.cli("jobs", "check", "--kind", "scheduler").exit_code == 1
    assert seed.cli("jobs", "check", "--hostname", "here").exit_code == 0
    assert "on there" in seed.cli("jobs", "check", "--hostname", "there").stderr
    seed.sql("UPDATE job SET detail = :detail", detail='{"look_age_s": 99.0}')
    assert "last looked for work 99 s ago" in seed.cli("jobs", "check").stderr
    seed.sql("UPDATE job SET lease_until = :at", at=now_us() - 60 * SECOND)
    assert "has not renewed its lease for 7" in seed.cli("jobs", "check").stderr
    seed.sql("UPDATE job SET pid_start = 1")
    result = seed.cli("jobs", "check")
    assert result.exit_code == 1
    assert f"(job {job}): its process is gone" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_check_of_several(seed: Seed) -> None:
    for _ in range(2):
        seed.job("scheduler")
    seed.sql("UPDATE job SET lease_until = :at", at=now_us() + 60 * SECOND)
    seed.job("scheduler", alive=False)
    assert seed.cli("jobs", "check").exit_code == 0, "one of them is well"
    result = seed.cli("jobs", "check", "--limit", "0")
    assert (result.exit_code, "2 daemons are well" in result.stderr) == (1, True)
    assert seed.cli("jobs", "check", "--limit", "0", "--allow-multiple").exit_code == 0
    assert seed.cli("jobs", "check", "--allow-multiple").exit_code == 2


def test_list(seed: Seed) -> None:
    seed.job("worker")
    seed.sql("UPDATE job SET lease_until = :at", at=now_us() + 60 * SECOND)
    seed.job("triggerer", alive=False, detail='{"running": 3}')
    rows = seed.json("jobs", "list")
    assert [(row["kind"], row["healthy"], row["trouble"]) for row in rows] == [
        ("triggerer", False, "its process is gone"), ("worker", True, None),
    ]  # fmt: skip
    assert rows[0]["detail"] == {"running": 3}
    assert [row["kind"] for row in seed.json("jobs", "list", "--kind", "worker")] == ["worker"]
    assert "running=3" in seed.cli("jobs", "list").stdout


def test_metrics_list(seed: Seed) -> None:
    rows = {row["name"]: row for row in seed.json("metrics", "list")}
    assert rows["triggers.blocked_main_thread"]["kind"] == "counter"
    assert rows["executor.open_slots"]["prometheus"] == "roost_executor_open_slots"
