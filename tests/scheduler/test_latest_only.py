"""What the seed says of LatestOnly, and what its example shows (S91, S92, S94)."""

from __future__ import annotations

from tests.scheduler.hands import World, ok, skipped, task


def test_s91_s92_s94_only_what_is_downstream_is_skipped_and_all_of_it(world: World) -> None:
    run = world.start(
        task("latest_only", "task1"),
        task("task1", "task3 task4"),
        task("task2", "task3 task4"),
        task("task3"),
        task("task4", trigger_rule="all_done"),
    )
    ran = world.work(latest_only=skipped(skip=["task1", "task3", "task4"]), task2=ok())
    assert ran == ["latest_only", "task2"]
    assert world.states() == {
        "latest_only": "skipped",
        "task1": "skipped",
        "task2": "success",
        "task3": "skipped",
        "task4": "skipped",  # directly, though its rule is all_done
    }
    assert world.run_state(run) == "success"
