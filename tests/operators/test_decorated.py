"""The kinds of @task: bash, sensor, and what there is not (H17: they can be mapped too)."""

from __future__ import annotations

from typing import Any

import pytest

from roost.dag import XComArg, task
from roost.dag.operator import BaseOperator
from roost.exceptions import DagError
from roost.sensors import PokeReturnValue
from tests.dag.case import a_dag, run


def the(arg: Any) -> BaseOperator:
    assert isinstance(arg, XComArg)
    return arg.operator


def test_task_bash_runs_what_the_function_returns() -> None:
    @task.bash(env={"NAME": "you"}, append_env=True)
    def greet(word: str, ds: str) -> str:
        return f'echo "{word} $NAME on {ds} in {{{{ run_id }}}}"'

    with a_dag():
        made = greet("hello")
    assert the(made).task_type == "BashFunctionOperator"
    _, values = run(the(made))
    assert values["return_value"] == "hello you on 2026-01-31 in scheduled__2026-01-31"


@pytest.mark.parametrize("command", [None, "", 5])
def test_task_bash_needs_a_command(command: Any) -> None:
    with a_dag():
        made = task.bash(task_id="b")(lambda: command)()
    outcome, _ = run(the(made))
    assert outcome.error is not None
    assert "must return a command" in outcome.error


def test_task_bash_can_be_mapped_h17() -> None:
    @task.bash
    def count(n: int) -> str:
        return f"echo {n}"

    with a_dag():
        mapped = count.expand(n=[4, 5])
    assert [run(the(mapped), map_index=i)[1]["return_value"] for i in range(2)] == ["4", "5"]


def test_task_sensor_looks_until_it_is_so() -> None:
    looks: list[int] = []

    @task.sensor(poke_interval=0, timeout=60, mode="poke")
    def there(x: int) -> PokeReturnValue:
        looks.append(x)
        return PokeReturnValue(len(looks) == 3, "found")

    with a_dag():
        made = there(7)
    assert run(the(made))[1] == {"return_value": "found"}
    assert looks == [7, 7, 7]


def test_task_sensor_reschedules() -> None:
    @task.sensor(poke_interval=60, mode="reschedule")
    def there() -> bool:
        return False

    with a_dag():
        made = there()
    outcome, _ = run(the(made))
    assert outcome.defer is not None
    assert outcome.defer.lane == "timer"


@pytest.mark.parametrize("kind", ["virtualenv", "docker", "kubernetes"])
def test_kinds_that_are_not_there_are_named(kind: str) -> None:
    with pytest.raises(DagError, match=rf"no @task\.{kind} in Roost.*bash, branch"):
        getattr(task, kind)


def test_task_short_circuit_skips_what_follows() -> None:
    @task.short_circuit
    def go(x: int) -> bool:
        return x > 1

    @task
    def after() -> None: ...

    with a_dag():
        made = go(1)
        made >> after()
    outcome, _ = run(the(made))
    assert (outcome.kind, outcome.skip) == ("success", ["after"])
