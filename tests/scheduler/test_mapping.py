"""H17: mapped tasks and groups from the XCom they are mapped over to the end of their run."""

from __future__ import annotations

import pytest

from roost.dag.model import Length, ParsedFile, SerializedExpand
from roost.models import state_edits
from roost.scheduler.parsing.store import store_file
from tests.scheduler.hands import DAY, START, World, dag, deferred, failed, lost, ok, task

RETURN = "return_value"


def literal(*counts: int) -> SerializedExpand:
    return SerializedExpand([Length("literal", count) for count in counts])


def over(*lengths: Length | str) -> SerializedExpand:
    made = [Length("xcom", task_id=one) if isinstance(one, str) else one for one in lengths]
    return SerializedExpand(made)


def leave(world: World, name: str, length: int | None, key: str = RETURN) -> None:
    """A task, `t` or `t.2`, leaves a value of that length."""
    task_id, _, k = name.partition(".")
    world.execute(
        "INSERT INTO xcom (ti_id, key, value, length, created_at) SELECT id, :key, '0', :length, 0 "
        "FROM task_instance WHERE task_id = :t AND map_index = :k "
        "AND dag_run_id = (SELECT max(id) FROM dag_run)",
        t=task_id, k=int(k or -1), key=key, length=length,
    )  # fmt: skip


def states(world: World) -> dict[str, str]:
    rows = world.fetch("SELECT task_id, map_index AS k, state FROM task_instance ORDER BY 1, 2")
    return {r.task_id if r.k < 0 else f"{r.task_id}.{r.k}": r.state for r in rows}


def run_state(world: World) -> str:
    return str(world.fetch("SELECT state FROM dag_run")[0].state)


MAPPED = (task("a", "m"), task("m", "z", expand=over("a")), task("z"))


def test_h17_a_task_is_mapped_over_an_xcom(world: World) -> None:
    world.start(*MAPPED)
    world.claim()
    assert states(world) == {"a": "running", "m": "none", "z": "none"}
    leave(world, "a", 3)
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    assert states(world) == {
        "a": "success", "m.0": "queued", "m.1": "queued", "m.2": "queued", "z": "none",
    }  # fmt: skip
    claimed = world.claim()
    assert [(one.task_id, one.map_index) for one in claimed] == [("m", 0), ("m", 1), ("m", 2)]
    world.end_all({one.id: ok() for one in claimed[:2]})
    world.turns()
    assert states(world)["z"] == "none"
    world.end(claimed[2], ok())
    world.turns()
    assert states(world)["z"] == "queued"
    world.work()
    assert run_state(world) == "success"


def test_h17_one_failed_instance_fails_what_follows(world: World) -> None:
    key = world.start(task("m", "z any", expand=literal(3)), task("z"),
                      task("any", trigger_rule="one_success"))  # fmt: skip
    claimed = world.claim()
    world.end(claimed[1], ok())
    world.turns()
    assert states(world)["any"] == "queued", "it runs with the first that succeeds"
    world.end(claimed[0], failed())
    world.end(claimed[2], ok())
    world.turns()
    assert states(world)["z"] == "upstream_failed"
    world.work()
    assert world.run_state(key) == "failed"


@pytest.mark.parametrize(
    ("expand", "length"),
    [
        (literal(2, 3), 6),
        (literal(), 1),
        (over(Length("zip", parts=[Length("literal", 2), Length("literal", 5)])), 2),
        (over(Length("zip", parts=[Length("literal", 2), Length("literal", 5)], longest=True)), 5),
        (over(Length("concat", parts=[Length("literal", 2), Length("xcom", task_id="a")])), 6),
        (over("a", Length("literal", 2)), 8),
        (over("m"), 2),
        (over(Length("xcom", task_id="m", key="k")), 1),
    ],
)  # fmt: skip
def test_h17_lengths(world: World, expand: SerializedExpand, length: int) -> None:
    """A product of factors, zips, concatenations, what instances left each."""
    tasks = [task("a", "x"), task("m", "x", expand=literal(3))]
    world.start(*tasks, task("x", expand=expand, trigger_rule="all_done"))
    claimed = world.claim()
    leave(world, "a", 4)
    leave(world, "m.0", None)
    leave(world, "m.2", None)
    leave(world, "m.1", None, "k")
    world.end_all({one.id: ok() for one in claimed})
    world.turns()
    assert sum(name.startswith("x.") for name in states(world)) == length
    world.work()
    assert run_state(world) == "success"


def test_h17_nothing_to_map_over_is_skipped(world: World) -> None:
    world.start(*MAPPED)
    world.claim()
    leave(world, "a", 0)
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    assert states(world) == {"a": "success", "m": "skipped", "z": "skipped"}
    assert "mapped over nothing: its length is 0" in world.reasons("skip")
    assert run_state(world) == "success"


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (-1, "mapped over XCom 'return_value' of 'a', which left none: return a list"),
        (None, "mapped over XCom 'return_value' of 'a', which is not a list, tuple or dict"),
        (1025, "mapped over 1025 values, more than core.max_map_length = 1024"),
    ],
)
def test_h17_what_has_no_length_or_too_great_a_one_fails(
    world: World, length: int | None, reason: str
) -> None:
    world.start(*MAPPED)
    world.claim()
    if length != -1:
        leave(world, "a", length)
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    assert states(world) == {"a": "success", "m": "failed", "z": "upstream_failed"}
    (found,) = world.reasons("refuse")
    assert found is not None
    assert found.startswith(reason)
    assert run_state(world) == "failed"


@pytest.mark.parametrize(
    ("ending", "want"), [(failed(), "upstream_failed"), (ok(skip=["a"]), "skipped")]
)
def test_h17_a_source_that_did_not_run_leaves_no_length(
    world: World, ending: object, want: str
) -> None:
    """Its rule may let the mapped task run all the same."""
    world.start(
        task("b", "a"), task("a", "m"), task("m", expand=over("a"), trigger_rule="all_done")
    )
    world.work(b=ending)  # type: ignore[arg-type]
    assert states(world)["m"] == want


def test_h17_instances_of_a_group_follow_their_own_kind(world: World) -> None:
    world.start(
        task("a", "b", mapped_group="g"), task("b", "z", mapped_group="g"), task("z"),
        mapped_groups={"g": literal(2)},
    )  # fmt: skip
    claimed = world.claim()
    assert [(one.task_id, one.map_index) for one in claimed] == [("a", 0), ("a", 1)]
    world.end(claimed[1], ok())
    world.turns()
    found = states(world)
    assert (found["b.0"], found["b.1"]) == ("none", "queued")
    world.end(claimed[0], failed())
    world.work()
    found = states(world)
    assert (found["b.0"], found["b.1"], found["z"]) == (
        "upstream_failed", "success", "upstream_failed",
    )  # fmt: skip
    assert run_state(world) == "failed"


def test_h17_a_branch_inside_a_group_skips_its_own_kind_only_s70(world: World) -> None:
    world.start(
        task("br", "b c out", mapped_group="g"), task("b", mapped_group="g"),
        task("c", mapped_group="g"), task("out", trigger_rule="none_failed"),
        mapped_groups={"g": literal(2)},
    )  # fmt: skip
    first, second = world.claim()
    world.end(first, ok(skip=["c"]))
    world.end(second, ok(skip=["b"]))
    world.turns()
    found = states(world)
    assert [found[name] for name in ("b.0", "c.0", "b.1", "c.1")] == [
        "queued", "skipped", "skipped", "queued",
    ]  # fmt: skip


def test_h17_a_branch_skips_all_of_a_mapped_task_s70(world: World) -> None:
    world.start(task("br", "m n"), task("m", expand=literal(2)), task("n", expand=literal(2)))
    world.work(br=ok(skip=["m"]))
    assert states(world) == {"br": "success", "m": "skipped", "n.0": "queued", "n.1": "queued"}


def test_h17_each_instance_has_its_own_tries_deferrals_and_losses(world: World) -> None:
    world.start(task("m", expand=literal(4), retries=1, retry_delay_us=0))
    one, two, three, four = world.claim()
    world.end_all({one.id: failed(), two.id: deferred(), three.id: lost(), four.id: ok()})
    world.turns()
    assert states(world) == {
        "m.0": "queued", "m.1": "deferred", "m.2": "queued", "m.3": "success",
    }  # fmt: skip
    world.fire("m")
    world.turns()
    again = world.claim()
    assert sorted((each.map_index, each.try_number) for each in again) == [(0, 2), (1, 1), (2, 1)]
    world.end_all({each.id: ok() for each in again})
    world.turns()
    assert run_state(world) == "success"


def test_h17_instances_go_in_order_within_every_limit(world: World) -> None:
    world.start(
        task("b", expand=literal(3)), task("a", expand=literal(5)), max_active_tasks=4,
    )  # fmt: skip
    first = world.claim()
    assert [(one.task_id, one.map_index) for one in first] == [
        ("b", 0), ("b", 1), ("b", 2), ("a", 0),
    ]  # fmt: skip
    world.end_all({one.id: ok() for one in first})
    world.turns()
    assert [one.map_index for one in world.claim()] == [1, 2, 3, 4]


def test_h17_instances_go_before_the_tasks_that_stand_behind_theirs(world: World) -> None:
    world.start(task("m", expand=literal(3)), task("z"), max_active_tasks=2)
    assert [(one.task_id, one.map_index) for one in world.claim()] == [("m", 0), ("m", 1)]


def test_h17_a_restart_forgets_nothing(world: World) -> None:
    world.start(
        task("s", "m"), task("m", "a", expand=over("s")), task("a", "b", mapped_group="g"),
        task("b", mapped_group="g"), mapped_groups={"g": over("m")},
    )  # fmt: skip
    for _ in range(12):
        world.schedulers[0].forget()
        world.turns()
        if run_state(world) != "running":
            break
        claimed = world.claim(1)
        if claimed and claimed[0].task_id == "s":
            leave(world, "s", 2)
        elif claimed and claimed[0].task_id == "m":
            leave(world, f"m.{claimed[0].map_index}", None)
        world.end_all({one.id: ok() for one in claimed})
    assert run_state(world) == "success"
    assert list(states(world)) == ["a.0", "a.1", "b.0", "b.1", "m.0", "m.1", "s"]


@pytest.mark.parametrize("first", [0, 1])
def test_h17_all_of_the_past_must_have_passed_s89(world: World, first: int) -> None:
    mapped = task("m", expand=literal(2), depends_on_past=True)
    made = dag("d", mapped, schedule="@daily", start_date=START - 3 * DAY, catchup=True,
               end_date=START - DAY)  # fmt: skip
    world.store(made)
    world.turns()
    claimed = world.claim()
    world.end(claimed[first], ok())
    world.turns()
    assert world.claim() == [], "the other instance of the first run has not ended"
    world.end(claimed[1 - first], ok())
    world.turns()
    assert len(world.claim()) == 2


def test_h17_empty_tasks_are_mapped_without_a_dispatch_h27(world: World) -> None:
    world.start(task("m", "z", expand=literal(3), empty=True), task("z", empty=True))
    assert set(states(world).values()) == {"success"}
    assert run_state(world) == "success"


def test_s26_a_task_that_is_not_in_the_dag_any_more_is_removed(world: World) -> None:
    key = world.start(task("a", "b"), task("b"))
    world.execute(
        "INSERT INTO task_instance (dag_run_id, task_id, map_index) VALUES (:k, 'gone', -1)", k=key
    )
    world.schedulers[0].forget()
    world.turns()
    assert states(world)["gone"] == "removed"
    world.work()
    world.work()
    assert world.run_state(key) == "success"


def run_mapped(world: World, length: int) -> int:
    """A run of which `a` left that many values, and all has ended; gives its key."""
    key = world.start(*MAPPED)
    work_over(world, length)
    world.work()
    assert world.run_state(key) == "success"
    return key


def work_over(world: World, length: int) -> None:
    """`a` runs and leaves that many values, and its instances run."""
    world.claim()
    leave(world, "a", length)
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    world.work()


@pytest.mark.parametrize(("first", "then"), [(3, 3), (3, 2), (2, 4), (3, 1), (1, 3)])
def test_h17_cleared_instances_are_as_many_as_there_are_values_then(
    world: World, first: int, then: int
) -> None:
    key = run_mapped(world, first)
    world.clear("a", "m", "z")
    world.turns()
    work_over(world, then)
    found = states(world)
    assert [found[f"m.{k}"] for k in range(then)] == ["success"] * then
    assert [found[f"m.{k}"] for k in range(then, first)] == ["removed"] * (first - then)
    world.work()
    assert world.run_state(key) == "success"


def test_h17_removed_instances_come_back_and_have_their_tries(world: World) -> None:
    key = run_mapped(world, 3)
    for length in (1, 4):
        world.clear("a", "m", "z")
        world.turns()
        work_over(world, length)
        world.work()
        assert world.run_state(key) == "success"
    assert set(states(world).values()) == {"success"}
    tries = world.fetch(
        "SELECT try_number FROM task_instance WHERE task_id = 'm' ORDER BY map_index"
    )
    assert [row.try_number for row in tries] == [3, 2, 2, 1]


def test_h17_an_instance_that_comes_back_has_all_its_retries(world: World) -> None:
    key = world.start(task("a", "m"), task("m", expand=over("a"), retries=1, retry_delay_us=0))
    work_over(world, 2)
    for names, length in ((("a", "m"), 1), (("a", "m.0"), 2)):
        rows = world.fetch("SELECT id, task_id, map_index FROM task_instance")
        chosen = [r.id for r in rows if {r.task_id, f"{r.task_id}.{r.map_index}"} & {*names}]
        world.transact(lambda tx, chosen=chosen: state_edits.clear(tx, chosen, actor="cli"))  # type: ignore[misc]
        world.turns()
        if length == 1:
            work_over(world, length)
    world.claim()
    leave(world, "a", 2)
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    assert states(world)["m.1"] == "queued"
    world.work(m=failed())
    assert states(world)["m.1"] == "queued", "its retry"
    world.work()
    assert world.run_state(key) == "success"


def test_h17_cleared_instances_are_skipped_where_there_are_no_values_then(world: World) -> None:
    key = run_mapped(world, 2)
    world.clear("a", "m", "z")
    world.turns()
    work_over(world, 0)
    assert states(world) == {"a": "success", "m.0": "skipped", "m.1": "removed", "z": "skipped"}
    assert world.run_state(key) == "success"


def test_h17_an_instance_cleared_alone_leaves_the_others_as_they_are(world: World) -> None:
    key = run_mapped(world, 3)
    world.execute("DELETE FROM xcom")
    (row,) = world.fetch("SELECT id FROM task_instance WHERE map_index = 1")
    world.transact(lambda tx: state_edits.clear(tx, [row.id], actor="cli"))
    world.turns()
    assert world.work() == ["m"]
    assert world.run_state(key) == "success"
    assert set(states(world)) == {"a", "m.0", "m.1", "m.2", "z"}


def test_h17_a_task_left_out_of_its_group_joins_it_when_it_is_cleared(world: World) -> None:
    key = world.start(
        task("no", "a"), task("yes", "b"),
        task("a", "c", mapped_group="g"), task("b", "c", mapped_group="g"),
        task("c", mapped_group="g", trigger_rule="all_done"), mapped_groups={"g": literal(2)},
    )  # fmt: skip
    no, yes = world.claim()
    world.end(no, failed())
    world.turns()
    world.end(yes, ok())
    world.turns()
    world.work()
    world.work()
    assert states(world) == {
        "a": "upstream_failed", "b.0": "success", "b.1": "success",
        "c.0": "success", "c.1": "success", "no": "failed", "yes": "success",
    }  # fmt: skip
    world.clear("no", "a", "c")
    world.turns()
    world.work()
    world.work()
    world.work()
    assert states(world) == dict.fromkeys(
        ["a.0", "a.1", "b.0", "b.1", "c.0", "c.1", "no", "yes"], "success"
    )
    assert world.run_state(key) == "success"


def test_h17_a_task_may_be_mapped_in_one_version_and_not_in_the_next_s26(world: World) -> None:
    key = world.start(task("m", "z", expand=literal(2)), task("z", expand=literal(1)))
    world.work()
    world.work()
    world.store(dag("d", task("m", "z"), task("z")))
    world.clear("m", "z")
    world.turns()
    assert states(world) == {
        "m": "queued", "m.0": "removed", "m.1": "removed", "z": "none", "z.0": "removed",
    }  # fmt: skip
    world.store(dag("d", task("m", "z", expand=literal(3)), task("z")))
    world.work()
    world.work()
    assert world.run_state(key) == "success"
    assert (states(world)["m"], states(world)["m.0"]) == ("success", "removed")
    world.clear("m", "z")
    world.turns()
    assert [len(world.work()), world.work()] == [3, ["z"]]
    assert states(world) == {
        "m": "removed", "m.0": "success", "m.1": "success", "m.2": "success",
        "z": "success", "z.0": "removed",
    }  # fmt: skip
    assert world.run_state(key) == "success"
    world.store(dag("d", task("m", "z"), task("z")))
    world.clear("z")
    world.turns()
    assert [world.work(), world.work()] == [["m"], ["z"]], "it does not follow what is removed"
    assert world.run_state(key) == "success"


def finish(world: World) -> None:
    """Work until nothing is left to do."""
    world.turns()
    while world.work():
        pass


def test_h17_a_mapped_group_may_be_a_plain_one_in_between_s26(world: World) -> None:
    tasks = (
        task("x", "y", mapped_group="g"), task("y", "z", mapped_group="g"), task("z"),
    )  # fmt: skip
    key = world.start(*tasks, mapped_groups={"g": literal(2)})
    finish(world)
    world.store(dag("d", task("x", "y"), task("y", "z"), task("z")))
    world.clear("x", "y", "z")
    finish(world)
    assert states(world)["x"] == "success"
    world.store(dag("d", *tasks, mapped_groups={"g": literal(2)}))
    world.clear("z")
    finish(world)
    found = states(world)
    assert {found[name] for name in ("x.0", "x.1", "y.0", "y.1", "z")} == {"success"}
    assert (found["x"], found["y"]) == ("removed", "removed")
    assert world.run_state(key) == "success"


def test_s26_a_task_that_is_in_the_dag_again_runs_again(world: World) -> None:
    world.start(task("a", "b"), task("b"))
    finish(world)
    world.store(dag("d", task("a")))
    world.clear("a")
    finish(world)
    assert states(world) == {"a": "success", "b": "removed"}
    world.store(dag("d", task("a", "b"), task("b")))
    world.clear("a")
    finish(world)
    assert states(world) == {"a": "success", "b": "success"}


def test_h17_what_cannot_be_expanded_fails_fast_and_calls_back_h12_h23(world: World) -> None:
    key = world.start(
        task("m", expand=literal(2000), callbacks=["on_failure"]), task("a", "b"), task("b"),
        fail_fast=True,
    )  # fmt: skip
    assert states(world) == {"m": "failed", "a": "skipped", "b": "skipped"}
    assert world.run_state(key) == "failed"
    (called,) = world.fetch("SELECT callback FROM dispatch WHERE ti_id IS NULL")
    assert "core.max_map_length" in called.callback


def test_h17_a_run_with_instances_is_cut_short_h12(world: World) -> None:
    key = world.start(task("m", "z", expand=literal(3)), task("z"), fail_fast=True)
    first, second, third = world.claim()
    world.end(first, failed())
    world.turns()
    world.obey()
    world.turns()
    assert states(world) == {"m.0": "failed", "m.1": "skipped", "m.2": "skipped", "z": "skipped"}
    assert world.run_state(key) == "failed"
    assert not world.end(second, ok()) and not world.end(third, ok())


def test_h18_a_failed_teardown_does_not_fail_its_run(world: World) -> None:
    rule = "all_done_setup_success"
    key = world.start(
        task("s", "w t", setup=True), task("w", "t"), task("t", teardown=True, trigger_rule=rule)
    )
    world.work()
    world.work(w=failed())
    assert states(world)["t"] == "queued", "it runs after a failed task"
    world.clear("w")
    world.turns()
    world.work()
    world.work(t=failed())
    assert world.run_state(key) == "success"


def test_h18_without_its_setup_neither_work_nor_teardown_runs(world: World) -> None:
    rule = "all_done_setup_success"
    key = world.start(
        task("s", "w t", setup=True), task("w", "t"), task("t", teardown=True, trigger_rule=rule)
    )
    world.work(s=failed())
    assert states(world) == {"s": "failed", "w": "upstream_failed", "t": "upstream_failed"}
    assert world.run_state(key) == "failed"


def test_h17_a_dag_that_is_mapped_over_what_it_does_not_hold_is_an_import_error(
    world: World,
) -> None:
    """The scheduler never meets it, and the last good version stays in force."""
    world.start(task("m"))
    broken = ParsedFile("c" * 64, "", [], [dag("d", task("m", expand=over("gone")))], [])
    told = world.transact(
        lambda tx: store_file(tx, "d.py", broken, stamp="", took_us=0, paused=False)
    )
    assert told == "DAG 'd' does not hold together: 'm' is mapped over the unknown task 'gone'"
    world.work()
    assert run_state(world) == "success"
