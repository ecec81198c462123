"""The gauges of the seed note and their neighbours, from counts (N6-N10, 2D)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from roost.support.gauges import PoolUse, Snapshot, TaskKey, TriggererLoad, gauges_from
from roost.support.metrics import METRICS, find
from roost.support.stats import NullStats

ETL = ("default", "etl", "load")
WAIT = ("slow", "etl", "wait")
BUSY = Snapshot(
    parallelism=32,
    tasks={ETL: {"queued": 2, "running": 3, "success": 90}, WAIT: {"deferred": 40, "scheduled": 1}},
    pools=[
        PoolUse("default_pool", 128, running=3, queued=2, deferred=38, scheduled=1, starving=4),
        PoolUse("counts", 5, 100, running=1, deferred=2, scheduled=3, resumed=1, starving=5),
    ],
    executable=7,
    dagruns_running=2,
    dags=11,
    import_errors=1,
    parse_us=1_250_000,
    triggerers=[TriggererLoad("a", 30, 100), TriggererLoad("a", 5, 50), TriggererLoad("b", 5)],
)


def read(snapshot: Snapshot) -> dict[str, float]:
    readings = gauges_from(snapshot)
    NullStats().report(readings)  # checks names and labels
    found = {".".join([name, *labels.values()]): value for name, value, labels in readings}
    assert len(found) == len(readings), "a series is given twice"
    return found


def test_every_number_of_a_busy_moment() -> None:
    assert read(BUSY) == {
        "executor.open_slots": 29,  # N6: parallelism - running
        "executor.queued_tasks": 2,  # N7
        "executor.running_tasks": 3,  # N8
        "scheduler.tasks.starving": 9,  # N9: the sum over pools, not the last pool's
        "scheduler.tasks.executable": 7,  # N10
        "scheduler.dagruns.running": 2,
        "dagbag_size": 11,
        "dag_processing.import_errors": 1,
        "dag_processing.total_parse_time": 1.25,
        "ti.queued.default.etl.load": 2,
        "ti.running.default.etl.load": 3,
        "ti.deferred.slow.etl.wait": 40,
        "ti.scheduled.slow.etl.wait": 1,
        "pool.open_slots.default_pool": 123,
        "pool.queued_slots.default_pool": 2,
        "pool.running_slots.default_pool": 3,
        "pool.deferred_slots.default_pool": 38,
        "pool.scheduled_slots.default_pool": 1,
        "pool.starving_tasks.default_pool": 4,
        "pool.open_slots.counts": 1,  # H5: deferred and resumed count
        "pool.queued_slots.counts": 0,
        "pool.running_slots.counts": 1,
        "pool.deferred_slots.counts": 2,
        "pool.scheduled_slots.counts": 3,
        "pool.starving_tasks.counts": 5,
        "triggers.running.a": 35,
        "triggers.running.b": 5,
        "triggerer.capacity_left.a": 115,
    }


def test_every_gauge_of_the_registry_is_read() -> None:
    read_names = {find(reading.name).name for reading in gauges_from(BUSY)}
    assert read_names == {metric.name for metric in METRICS if metric.kind == "gauge"}


def test_an_idle_installation_says_nothing_about_single_tasks() -> None:
    idle = read(Snapshot(parallelism=4, tasks={ETL: {"success": 5, "running": 0}}))
    assert idle["executor.open_slots"] == 4
    assert not any(name.startswith("ti.") for name in idle)


def test_taking_over_takes_back_what_a_killed_scheduler_left_standing() -> None:
    taken = read(replace(BUSY, known=[ETL, WAIT, ("default", "gone", "t")]))
    for state in ("scheduled", "queued", "running", "deferred"):
        assert taken[f"ti.{state}.default.gone.t"] == 0
    assert taken["ti.deferred.default.etl.load"] == 0
    assert taken["ti.deferred.slow.etl.wait"] == 40


def test_a_pool_made_smaller_is_full_not_in_debt() -> None:
    assert PoolUse("p", 2, running=5).open == 0


def test_a_pool_without_limit_says_so() -> None:
    assert PoolUse("p", -1, running=5).open == -1


KEYS = st.tuples(*[st.sampled_from(["a", "b", "c"])] * 3)
STATES = st.dictionaries(
    st.sampled_from(["none", "scheduled", "queued", "running", "deferred", "success"]),
    st.integers(0, 50),
)
TASKS = st.dictionaries(KEYS, STATES)


@given(st.integers(1, 64), TASKS, st.lists(KEYS, unique=True))
def test_the_task_gauges_add_up_to_the_truth(
    parallelism: int, tasks: dict[TaskKey, dict[str, int]], known: list[TaskKey]
) -> None:
    found = read(Snapshot(parallelism, tasks, known=known))
    truth: Counter[str] = Counter()
    for states in tasks.values():
        truth.update(states)
    for state in ("scheduled", "queued", "running", "deferred"):
        said = sum(value for name, value in found.items() if name.startswith(f"ti.{state}."))
        assert said == truth[state]
    assert found["executor.running_tasks"] == truth["running"]
    assert found["executor.queued_tasks"] == truth["queued"]
    assert 0 <= found["executor.open_slots"] <= parallelism
