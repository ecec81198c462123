"""``dags show``: every task once, every edge told."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from roost.cli.dag_show import draw
from roost.dag.model import SerializedDag, SerializedTask, SerializedTimetable
from tests.cli.seed import Seed


def dag_of(edges: dict[str, list[str]], **rules: str) -> SerializedDag:
    tasks = [
        SerializedTask(
            task_id=name,
            operator="Op",
            downstream=below,
            trigger_rule=rules.get(name, "all_success"),  # type: ignore[arg-type]
        )
        for name, below in edges.items()
    ]
    return SerializedDag(dag_id="d", timetable=SerializedTimetable(kind="null"), tasks=tasks)


def test_a_diamond() -> None:
    edges = {"start": ["a", "b"], "a": ["join"], "b": ["join"], "join": [], "alone": []}
    assert list(draw(dag_of(edges, join="one_success"))) == [
        "├─ start [Op]",
        "│  ├─ a [Op] ^ join",
        "│  └─ b [Op]",
        "│     └─ join [Op, one_success] after a, b",
        "└─ alone [Op]",
    ]


@st.composite
def graphs(draw_: st.DrawFn) -> dict[str, list[str]]:
    size = draw_(st.integers(1, 12))
    names = [f"t{at}" for at in range(size)]
    return {
        name: sorted(draw_(st.sets(st.sampled_from(names[at + 1 :])))) if names[at + 1 :] else []
        for at, name in enumerate(names)
    }


@given(graphs())
def test_every_task_once_and_every_edge_told(edges: dict[str, list[str]]) -> None:
    told: set[tuple[str, str]] = set()
    seen: list[str] = []
    path: list[str] = []
    for line in draw(dag_of(edges)):
        match = re.fullmatch(r"(?P<indent>[│ ]*)[├└]─ (?P<name>\w+) \[Op\](?P<rest>.*)", line)
        assert match is not None
        name, depth = match["name"], len(match["indent"]) // 3
        seen.append(name)
        path[depth:] = [name]
        if depth:
            told.add((path[depth - 1], name))
        for kind, names in re.findall(r" (after|\^) ([\w, ]+?)(?= \^|$)", match["rest"]):
            for other in names.split(", "):
                told.add((other, name) if kind == "after" else (name, other))
    assert sorted(seen) == sorted(edges)
    assert told == {(name, below) for name, below_all in edges.items() for below in below_all}


def test_the_command(seed: Seed) -> None:
    seed.dags(dag_of({"a": ["b"], "b": []}))
    assert seed.cli("dags", "show", "d").stdout.splitlines() == [
        "d (no schedule, 2 tasks)",
        "└─ a [Op]",
        "   └─ b [Op]",
    ]
