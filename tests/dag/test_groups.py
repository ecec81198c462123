"""H18: task groups, and setup and teardown tasks, as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from roost.dag import DAG, TaskGroup, XComArg, chain, setup, task, task_group, teardown
from roost.dag.operator import BaseOperator
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError
from roost.operators import EmptyOperator
from tests.dag.case import a_dag


def empty(name: str, **knobs: Any) -> EmptyOperator:
    return EmptyOperator(task_id=name, **knobs)


def edges(dag: DAG) -> set[str]:
    return {f"{t.task_id}>{child}" for t in dag.tasks for child in t.downstream}


def flags(dag: DAG) -> dict[str, str]:
    found = {}
    for one in serialize_dag(dag).tasks:
        marks = [
            name for name in ("setup", "teardown", "on_failure_fail_dagrun") if getattr(one, name)
        ]
        found[one.task_id] = " ".join(marks)
    return found


@task
def work() -> None: ...


# -- groups


def test_h18_a_task_group_function_makes_a_group_each_call() -> None:
    @task_group
    def load(name: str) -> None:
        """Loads."""
        work.override(task_id=name)()

    with a_dag() as dag:
        first, second = load("a"), load("b")
        first >> second
    assert dag.task_ids == ["load.a", "load__1.b"]
    assert edges(dag) == {"load.a>load__1.b"}
    assert isinstance(first, TaskGroup)
    assert first.tooltip == "Loads."


def test_h18_a_task_group_function_gives_what_it_returns() -> None:
    @task_group(group_id="g", default_args={"retries": 2})
    def load() -> XComArg:
        return work()

    with a_dag(default_args={"retries": 1, "pool": "p"}) as dag:
        made = load()
        work.override(task_id="end")() << made
    inner = dag.get_task("g.work")
    assert (inner.retries, inner.pool) == (2, "p")
    assert edges(dag) == {"g.work>end"}


def test_h18_a_wrong_call_of_a_group_is_refused() -> None:
    @task_group
    def load(name: str) -> None: ...

    with a_dag(), pytest.raises(TypeError, match=r"load\(\): missing a required argument"):
        load()


def test_h18_the_inner_groups_defaults_win() -> None:
    with (
        a_dag(default_args={"retries": 1, "pool": "d", "queue": "d"}),
        TaskGroup("g", default_args={"retries": 2, "pool": "g"}),
        TaskGroup("h", default_args={"retries": 3}),
    ):
        one = empty("x")
        own = empty("y", retries=4)
    assert (one.retries, one.pool, one.queue) == (3, "g", "d")
    assert own.retries == 4


def test_h18_a_group_id_that_is_taken() -> None:
    with a_dag() as dag:
        TaskGroup("g")
        TaskGroup("g", add_suffix_on_collision=True)
        with pytest.raises(DagError, match="already has"):
            TaskGroup("g")
    assert list(dag.group_dict) == ["g", "g__1"]


def test_h18_groups_stand_in_chains() -> None:
    with a_dag() as dag:
        with TaskGroup("g") as group:
            empty("x")
        chain(empty("a"), group, work(), [empty("b"), empty("c")])
    assert edges(dag) == {"a>g.x", "g.x>work", "work>b", "work>c"}


# -- setup and teardown


def test_h18_marks_and_the_rule_of_a_teardown() -> None:
    with a_dag() as dag:
        make = empty("make").as_setup()
        clear = empty("clear").as_teardown(setups=make, on_failure_fail_dagrun=True)
        empty("plain")
    assert flags(dag) == {"make": "setup", "clear": "teardown on_failure_fail_dagrun", "plain": ""}
    assert clear.trigger_rule == "all_done_setup_success"
    assert edges(dag) == {"make>clear"}


def test_h18_decorators_in_every_form() -> None:
    @setup
    def make() -> int:
        return 1

    @teardown(on_failure_fail_dagrun=True)
    def clear(x: Any) -> None: ...

    @setup
    @task(retries=3)
    def other() -> None: ...

    @teardown
    @task
    def last() -> None: ...

    with a_dag() as dag:
        clear(make())
        other() >> last()
    assert flags(dag) == {
        "make": "setup", "clear": "teardown on_failure_fail_dagrun", "other": "setup",
        "last": "teardown",
    }  # fmt: skip
    assert dag.get_task("other").retries == 3


def test_h18_a_task_group_is_no_setup() -> None:
    @task_group
    def load() -> None: ...

    with pytest.raises(DagError, match="a group of tasks cannot be a setup"):
        setup(load)


def test_h18_setups_may_be_several_and_results() -> None:
    with a_dag() as dag:
        one, two = empty("one"), work()
        empty("end").as_teardown(setups=[one, two])
    assert flags(dag) == {"one": "setup", "work": "setup", "end": "teardown"}
    assert edges(dag) == {"one>end", "work>end"}


def test_h18_a_block_puts_its_tasks_between() -> None:
    with a_dag() as dag:
        make, clear = empty("make").as_setup(), empty("clear").as_teardown()
        with make >> clear:
            empty("a") >> [empty("b"), work()]
        empty("outside")
    assert edges(dag) == {
        "make>clear", "make>a", "a>b", "a>work", "b>clear", "work>clear",
    }  # fmt: skip


def test_h18_blocks_nest_and_take_results() -> None:
    @setup
    def make() -> None: ...

    @teardown
    def clear() -> None: ...

    with a_dag() as dag, make() >> clear():
        inner = make.override(task_id="make2")()
        with inner >> clear.override(task_id="clear2")():
            empty("a")
    assert edges(dag) == {
        "make>clear", "make>make2", "make2>clear2", "make2>a", "a>clear2", "clear2>clear",
    }  # fmt: skip


def test_h18_a_block_may_begin_with_the_setup() -> None:
    with a_dag() as dag:
        make = empty("make")
        empty("clear").as_teardown(setups=make)
        with make:
            empty("a")
    assert edges(dag) == {"make>clear", "make>a", "a>clear"}


def test_h18_only_a_setup_or_teardown_opens_a_block() -> None:
    with a_dag(), pytest.raises(DagError, match="only a setup or a teardown"), empty("a"):
        pass


def test_h18_nothing_waits_for_the_teardown_of_a_group() -> None:
    with a_dag() as dag:
        with TaskGroup("g") as group:
            make, clear = empty("make").as_setup(), empty("clear").as_teardown()
            with make >> clear:
                empty("a")
        group >> empty("end")
        with TaskGroup("bare") as bare:
            empty("s").as_setup() >> empty("t").as_teardown()
        bare >> empty("after")
    assert edges(dag) >= {"g.a>end"}
    assert "g.clear>end" not in edges(dag)
    assert "g.make>end" not in edges(dag)
    assert dag.get_task("after").upstream_task_ids == set()


def test_h18_a_teardown_has_one_rule_and_what_follows_a_setup_needs_its_success() -> None:
    with a_dag() as dag:
        with pytest.raises(DagError, match="a teardown has the trigger rule"):
            empty("x", trigger_rule="all_done").as_teardown()
        empty("make").as_setup() >> empty("late", trigger_rule="all_done")
    with pytest.raises(DagError, match="'late' follows the setup 'make'"):
        serialize_dag(dag)


def test_h18_mapped_tasks_can_be_marked() -> None:
    @teardown
    def clear(x: Any) -> None: ...

    with a_dag() as dag:
        clear.expand(x=[1, 2])
    mapped: BaseOperator = dag.get_task("clear")
    assert mapped.is_teardown
    assert mapped.trigger_rule == "all_done_setup_success"
