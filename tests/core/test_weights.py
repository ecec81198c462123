"""S42-S44: effective priority weights against a walk of the graph."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag.model import EdgeError, SerializedTask, WeightRule
from roost.dag.weights import MAX_WEIGHT, MIN_WEIGHT, effective_weights

RULES: tuple[WeightRule, ...] = get_args(WeightRule)


def tasks_of(
    edges: dict[int, list[int]], own: list[int], rules: list[WeightRule]
) -> list[SerializedTask]:
    return [
        SerializedTask(
            task_id=str(i),
            operator="Empty",
            downstream=[str(child) for child in edges.get(i, [])],
            priority_weight=weight,
            weight_rule=rule,
        )
        for i, (weight, rule) in enumerate(zip(own, rules, strict=True))
    ]


def walk(start: int, edges: dict[int, list[int]]) -> set[int]:
    seen: set[int] = set()
    stack = list(edges.get(start, []))
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(edges.get(node, []))
    return seen


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[int, list[int]], list[int], list[WeightRule]]:
    size = draw(st.integers(0, 14))
    edges = {i: draw(st.lists(st.integers(i + 1, size - 1), max_size=4)) for i in range(size - 1)}
    weights = st.integers(-5, 5) | st.integers(-(2**40), 2**40)
    own = draw(st.lists(weights, min_size=size, max_size=size))
    rule = st.sampled_from(RULES)
    return edges, own, draw(st.lists(rule, min_size=size, max_size=size))


def clamp(weight: int) -> int:
    return min(max(weight, MIN_WEIGHT), MAX_WEIGHT)


@given(graphs())
def test_weights_are_what_a_walk_of_the_graph_sums(
    graph: tuple[dict[int, list[int]], list[int], list[WeightRule]],
) -> None:
    edges, own, rules = graph
    turned: dict[int, list[int]] = {}
    for parent, children in edges.items():
        for child in children:
            turned.setdefault(child, []).append(parent)
    want = []
    for i, rule in enumerate(rules):
        reached = {"downstream": edges, "upstream": turned, "absolute": {}}[rule]
        want.append(clamp(clamp(own[i]) + sum(clamp(own[n]) for n in walk(i, reached))))
    assert effective_weights(tasks_of(edges, own, rules)) == want


def test_a_task_reached_on_two_paths_counts_once_s42() -> None:
    diamond = {0: [1, 2], 1: [3], 2: [3]}
    assert effective_weights(tasks_of(diamond, [1, 1, 1, 10], ["downstream"] * 4)) == [
        13,
        11,
        11,
        10,
    ]


def test_raising_a_weight_raises_every_ancestor_s44() -> None:
    chain = {i: [i + 1] for i in range(4)}
    low = effective_weights(tasks_of(chain, [1] * 5, ["downstream"] * 5))
    high = effective_weights(tasks_of(chain, [1, 1, 1, 9, 1], ["downstream"] * 5))
    assert [after - before for before, after in zip(low, high, strict=True)] == [8, 8, 8, 8, 0]


def test_a_chain_of_ten_thousand_needs_no_recursion() -> None:
    size = 10_000
    chain = {i: [i + 1] for i in range(size - 1)}
    own = list(range(size))
    weights = effective_weights(tasks_of(chain, own, ["downstream"] * size))
    assert weights[0] == sum(own)
    assert weights[-1] == own[-1]
    assert effective_weights(tasks_of(chain, own, ["upstream"] * size))[-1] == sum(own)


def test_a_fan_of_ten_thousand() -> None:
    size = 10_000
    fan = {0: list(range(1, size - 1)), **{i: [size - 1] for i in range(1, size - 1)}}
    weights = effective_weights(tasks_of(fan, [1] * size, ["downstream"] * size))
    assert weights[0] == size
    assert weights[1:3] == [2, 2]


@pytest.mark.parametrize("edges", [{0: [7]}, {1: [0]}, {0: [0]}])
def test_a_wrong_edge_is_an_error(edges: dict[int, list[int]]) -> None:
    with pytest.raises(EdgeError, match="edge"):
        effective_weights(tasks_of(edges, [1, 1], ["downstream"] * 2))
