"""``tasks why``: the first thing in a task instance's way, with its numbers."""

from __future__ import annotations

from typing import Any

import msgspec

from roost.dag.model import (
    Length,
    SerializedDag,
    SerializedExpand,
    SerializedTask,
    SerializedTimetable,
)
from tests.cli.seed import MOMENT, Seed, chain

AT = "2026-01-05T06:00:00+00:00"


def why(seed: Seed, task: str = "x") -> str:
    result = seed.cli("tasks", "why", "a", "r", task)
    assert result.exit_code == 0, result.stderr
    return result.stdout.rstrip("\n")


def ready(seed: Seed, *tasks: str, **knobs: int) -> int:
    """A DAG with a running run, and every daemon alive."""
    seed.dags(chain("a", *(tasks or ("x",)), **knobs))
    for kind in ("scheduler", "worker", "triggerer"):
        seed.job(kind)
    return seed.run("a", "r")


def test_a_run_that_waits_for_its_turn(seed: Seed) -> None:
    seed.dags(chain("a", "x", max_active_runs=1))
    seed.run("a", "r", state="queued")
    assert why(seed) == "no scheduler is running; start `roost scheduler`"
    seed.job("scheduler")
    assert why(seed).startswith("nothing is in its way")
    seed.sql("UPDATE dag_usage SET runs = 1")
    assert why(seed) == "its run waits: 1 of max_active_runs=1 runs are active"
    seed.cli("dags", "pause", "a")
    assert why(seed) == "DAG a is paused; `roost dags unpause a`"


def test_upstream(seed: Seed) -> None:
    key = ready(seed, "v", "x")
    seed.instance(key, "v", state="running")
    assert why(seed) == "it waits for 1 of 1 upstream tasks: v (running); its rule is all_success"


def test_the_past(seed: Seed) -> None:
    task = SerializedTask(task_id="x", operator="O", depends_on_past=True)
    dag = chain("a", "x")
    seed.dags(msgspec.structs.replace(dag, tasks=[task]))
    seed.job("scheduler")
    before = seed.run("a", "before", date=MOMENT - 1)
    seed.run("a", "r")
    seed.instance(before, "x", state="running")
    assert why(seed) == "it depends on its past: running in run before"
    seed.instance(before, "x", state="skipped", end_date=MOMENT)  # S76
    assert why(seed).startswith("nothing is in its way")


def test_a_full_pool_tells_the_place_in_line(seed: Seed) -> None:
    key = ready(seed, "w", "x")
    seed.cli("pools", "set", "default_pool", "2")
    seed.instance(key, "w", state="scheduled")
    seed.instance(key, "x", state="scheduled")
    seed.sql("UPDATE pool SET used = 200")
    assert why(seed) == (
        "pool default_pool has no room: 2 of 2 slots in use, it needs 1; number 2 in line"
    )
    use(seed, knobs(weight_rule="absolute", priority_weight=9))
    assert why(seed).endswith("number 1 in line")
    use(seed, knobs(pool_slots=3))
    assert why(seed) == "it needs 3 slots of pool default_pool, which has 2 in all"
    use(seed, knobs(pool="gone"))
    assert why(seed) == "there is no pool 'gone'; `roost pools set gone SLOTS`"  # S41


def knobs(**ofx: Any) -> list[SerializedTask]:
    """Tasks w and x, knobs of x."""
    return [
        SerializedTask(task_id="w", operator="O", downstream=["x"], weight_rule="absolute"),
        SerializedTask(task_id="x", operator="O", **ofx),
    ]


def use(seed: Seed, tasks: list[SerializedTask], **of_dag: Any) -> None:
    """Have the run go on with another version of its DAG."""
    seed.dags(msgspec.structs.replace(chain("a", "x"), tasks=tasks, **of_dag))
    seed.sql("UPDATE dag_run SET version_id = (SELECT version_id FROM dag WHERE dag_id = 'a')")


def test_limits_of_one_task(seed: Seed) -> None:
    """H4: over all runs, and in one."""
    key = ready(seed, "w", "x")
    seed.instance(key, "x", state="scheduled")
    other = seed.run("a", "other")
    seed.dispatch(seed.instance(other, "x", state="running"), other)
    use(seed, knobs(max_active_tis_per_dag=1))
    seed.sql("UPDATE task_usage SET used = 1")
    assert why(seed) == "1 of max_active_tis_per_dag=1 of it are active over all runs"
    assert seed.json("tasks", "why", "a", "r", "x") == {
        "kind": "max_active_tis_per_dag",
        "text": why(seed),
        "numbers": {"active": 1, "limit": 1},
    }
    use(seed, knobs(max_active_tis_per_dagrun=1))
    assert why(seed).startswith("nothing is in its way")


def test_a_run_that_is_not_due(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    seed.job("scheduler")
    key = seed.run("a", "r", state="queued")
    seed.sql("UPDATE dag_run SET run_after = :at", at=MOMENT * 2)
    assert why(seed).startswith("its run is not due before 2082-")
    seed.sql("UPDATE dag_run SET run_after = :at", at=MOMENT)
    seed.run("a", "before", state="queued", date=MOMENT - 1)
    seed.sql("UPDATE dag_usage SET runs = 16")
    assert why(seed).endswith("16 of max_active_runs=16 runs are active; number 2 in line")
    assert key


def test_a_pause_says_why(seed: Seed) -> None:
    """H12: nobody paused it by hand."""
    key = ready(seed)
    seed.instance(key, "x", state="scheduled")
    seed.sql("UPDATE dag SET is_paused = :yes, paused_reason = 'all fail'", yes=True)
    assert why(seed) == "DAG a is paused; `roost dags unpause a`"
    seed.sql("UPDATE dag_run SET state = 'queued'")
    seed.instance(key, "x", state="none")
    assert why(seed) == "DAG a is paused (all fail); `roost dags unpause a`"


def test_everything_that_a_task_still_needs(seed: Seed) -> None:
    """failed-deps lists all of what why says the first."""
    key = ready(seed, "w", "x", max_active_tasks=1)
    seed.instance(key, "w", state="running")
    seed.cli("pools", "set", "default_pool", "0")
    seed.sql("UPDATE job SET ended_at = 1 WHERE kind = 'scheduler'")
    assert [row["kind"] for row in seed.json("tasks", "failed-deps", "a", "r", "x")] == [
        "upstream",
        "no_scheduler",
    ]
    seed.instance(key, "x", state="scheduled")
    assert [row["kind"] for row in seed.json("tasks", "failed-deps", "a", "r", "x")] == [
        "no_scheduler",
        "pool_too_small",
        "max_active_tasks",
    ]
    assert seed.json("tasks", "failed-deps", "a", "r", "w") == []


def test_limits_of_tasks(seed: Seed) -> None:
    key = ready(seed, "w", "x", max_active_tasks=1)
    seed.instance(key, "x", state="scheduled")
    seed.dispatch(seed.instance(key, "w", state="queued"), key)
    assert why(seed) == "1 of max_active_tasks=1 tasks of its run are active"
    seed.dags(chain("a", "w", "x"))
    seed.sql("UPDATE dag_run SET version_id = (SELECT version_id FROM dag)")
    seed.env["ROOST__CORE__PARALLELISM"] = "1"
    assert why(seed) == ("1 of core.parallelism=1 tasks are queued or running; number 1 in line")


def test_queued(seed: Seed) -> None:
    key = ready(seed, "w", "x")
    seed.dispatch(seed.instance(key, "w", state="queued"), key, number=1)
    seed.dispatch(seed.instance(key, "x", state="queued"), key, number=2)
    assert why(seed) == f"queued since {AT} in queue default, number 2 in line of 1 workers"
    seed.sql("UPDATE job SET detail = '{\"queues\": [\"gpu\"]}' WHERE kind = 'worker'")
    assert why(seed).endswith("none of 1 workers takes it: `roost worker -q default`")
    seed.sql("DELETE FROM job WHERE kind = 'worker'")
    assert why(seed).endswith("no worker is running: start `roost worker`")


def test_deferred(seed: Seed) -> None:
    key = ready(seed)
    ti = seed.instance(key, "x", state="deferred")
    trigger = seed.trigger(ti, key, timeout_at=MOMENT)
    since = f"deferred since {AT} on trigger {trigger} (mypkg.JobTrigger)"
    assert why(seed) == f"{since}: no triggerer has taken it yet, times out at {AT}"
    job = seed.scalar("SELECT id FROM job WHERE kind = 'triggerer'")
    pid = seed.scalar("SELECT pid FROM job WHERE kind = 'triggerer'")
    seed.sql("UPDATE trigger SET job_id = :job, timeout_at = NULL", job=job)
    assert why(seed) == f"{since}: polled by triggerer here:{pid}"
    seed.sql("UPDATE trigger SET job_id = NULL, lane = 'timer', due_at = :at", at=MOMENT)
    assert why(seed) == f"{since}: due at {AT}, a triggerer is about to see it"
    seed.sql("UPDATE trigger SET lane = 'external', due_at = NULL, external_key = 'a b'")
    assert why(seed) == f"{since}: waits for the event 'a b'"
    seed.sql("DELETE FROM trigger_event")
    seed.sql("UPDATE job SET ended_at = 1 WHERE kind = 'triggerer'")
    assert why(seed) == f"{since}: no triggerer is running, start `roost triggerer`"
    seed.sql("UPDATE trigger SET external_key = 'roost:run/d/r'")
    assert why(seed) == f"{since}: waits for runs of DAG d/r", "the scheduler ends it"


def test_retry_running_and_finished(seed: Seed) -> None:
    key = ready(seed)
    seed.instance(key, "x", state="up_for_retry", try_number=1, retry_at=MOMENT)
    assert why(seed) == f"try 1 of 1 failed; the next is due at {AT}"
    seed.instance(key, "x", state="running", hostname="h", start_date=MOMENT)
    assert why(seed) == f"it is running on h since {AT}, try 1"
    seed.instance(key, "x", state="success", end_date=MOMENT)
    assert why(seed) == f"it is not waiting: success since {AT}"


def test_h17_a_mapped_task_waits_for_instances_and_for_what_it_is_mapped_over(seed: Seed) -> None:
    over = SerializedExpand([Length("xcom", task_id="v")])
    seed.dags(
        SerializedDag(
            "a",
            SerializedTimetable("null"),
            [
                SerializedTask("v", "O", ["x"]),
                SerializedTask("x", "O", ["y"], expand=over, trigger_rule="always"),
                SerializedTask("y", "O"),
            ],
        )
    )
    seed.job("scheduler")
    key = seed.run("a", "r")
    seed.instance(key, "v", state="running")
    assert why(seed) == "it waits for 1 of 1 upstream tasks: v (running); its rule is always"
    seed.instance(key, "v", state="success", end_date=MOMENT)
    seed.instance(key, "x", state="success", end_date=MOMENT, map_index=1)
    seed.sql(
        "INSERT INTO task_instance (dag_run_id, task_id, map_index, state) "
        "VALUES (:k, 'x', 0, 'running')",
        k=key,
    )
    assert why(seed, "y") == (
        "it waits for 1 of 2 upstream tasks: x[0] (running); its rule is all_success"
    )
    told = seed.cli("tasks", "why", "a", "r", "x", "--map-index", "1").stdout
    assert told.startswith("it is not waiting: success since")


def test_h17_what_cannot_be_expanded_says_why(seed: Seed) -> None:
    key = ready(seed, "x")
    for state in ("failed", "skipped"):
        ti_id = seed.instance(key, "x", state=state, end_date=MOMENT)
        seed.sql(
            "INSERT INTO event_log (at, actor, event, ti_id, try_number, to_state, reason) "
            "VALUES (1, 's', 'refuse', :id, 0, :state, 'mapped over nothing')",
            id=ti_id,
            state=state,
        )
        assert why(seed).endswith(": mapped over nothing")
