"""Dependencies in every form (S31-S36), and graph order as a property."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag import DAG, Label, TaskGroup, chain, chain_linear, cross_downstream
from roost.dag.graph import find_cycle, reachable, topological_order
from roost.dag.operator import BaseOperator
from roost.exceptions import DagError
from roost.operators import EmptyOperator
from tests.dag.case import a_dag


def tasks(dag: DAG, names: str) -> list[BaseOperator]:
    return [EmptyOperator(task_id=name, dag=dag) for name in names]


def edges(dag: DAG) -> set[str]:
    return {f"{task.task_id}{child}" for task in dag.tasks for child in task.downstream}


def test_s31_four_spellings_of_one_edge() -> None:
    spellings: list[Callable[[BaseOperator, BaseOperator], Any]] = [
        lambda a, b: a >> b,
        lambda a, b: b << a,
        lambda a, b: a.set_downstream(b),
        lambda a, b: b.set_upstream(a),
    ]
    for spell in spellings:
        dag = a_dag()
        a, b = tasks(dag, "ab")
        spell(a, b)
        assert edges(dag) == {"ab"}
        assert a.downstream_task_ids == {"b"}
        assert b.upstream_task_ids == {"a"}
        assert a.downstream_list == [b]
        assert b.upstream_list == [a]


def test_s31_a_repeated_edge_changes_nothing() -> None:
    dag = a_dag()
    a, b = tasks(dag, "ab")
    a >> b
    a >> b
    assert list(a.downstream) == ["b"]


def test_s32_the_rightmost_is_returned() -> None:
    dag = a_dag()
    a, b, c, d = tasks(dag, "abcd")
    assert (a >> b >> c << d) is d
    assert edges(dag) == {"ab", "bc", "dc"}


def test_s33_a_dag_in_a_bitshift_assigns() -> None:
    dag = a_dag()
    a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
    dag >> a >> b
    assert a.dag is dag
    assert b.dag is dag
    assert edges(dag) == {"ab"}


def test_s34_lists_on_either_side() -> None:
    dag = a_dag()
    a, b, c, d = tasks(dag, "abcd")
    assert (a >> [b, c] >> d) is d
    assert edges(dag) == {"ab", "ac", "bd", "cd"}


def test_s34_lists_with_the_other_operator() -> None:
    dag = a_dag()
    a, b, c, d = tasks(dag, "abcd")
    assert (d << [b, c] << a) is a
    assert edges(dag) == {"ab", "ac", "bd", "cd"}


def test_s34_list_to_list_is_not_valid() -> None:
    a, b = tasks(a_dag(), "ab")
    with pytest.raises(TypeError):
        _ = [a] >> [b]  # type: ignore[operator]


def test_a_dependency_on_something_else_is_refused() -> None:
    (a,) = tasks(a_dag(), "a")
    with pytest.raises(TypeError, match="needs tasks"):
        a >> "b"
    with pytest.raises(TypeError, match="needs tasks"):
        a >> [None]


def test_s35_cross_downstream() -> None:
    dag = a_dag()
    a, b, c, d = tasks(dag, "abcd")
    cross_downstream([a, b], [c, d])
    assert edges(dag) == {"ac", "ad", "bc", "bd"}


def test_s36_chain_as_the_seed_says() -> None:
    dag = a_dag()
    a, b, c, d, e, f = tasks(dag, "abcdef")
    chain(a, [b, c], [d, e], f)
    assert edges(dag) == {"ab", "ac", "bd", "ce", "df", "ef"}


def test_s36_chain_linear_links_all_of_neighbouring_lists() -> None:
    dag = a_dag()
    a, b, c, d, e = tasks(dag, "abcde")
    chain_linear(a, [b, c], [d, e])
    assert edges(dag) == {"ab", "ac", "bd", "be", "cd", "ce"}


def test_s31_a_label_on_an_edge_changes_nothing() -> None:
    dag = a_dag()
    a, b, c, d, e = tasks(dag, "abcde")
    assert (a >> Label("large") >> b) is b
    [a, b] >> Label("both") >> c
    d << Label("back") << c
    c >> Label("list") >> [d, e]
    chain(d, Label("in a chain"), e)
    assert edges(dag) == {"ab", "ac", "bc", "cd", "ce", "de"}


def test_s36_one_list_chains_its_members() -> None:
    dag = a_dag()
    chain(tasks(dag, "abc"))
    assert edges(dag) == {"ab", "bc"}


def test_s36_unequal_neighbours_are_refused_with_both_lengths() -> None:
    a, b, c = tasks(a_dag(), "abc")
    with pytest.raises(DagError, match="hold 2 and 1 tasks"):
        chain([a, b], [c])
    with pytest.raises(TypeError, match="needs tasks"):
        chain(a, 5)  # type: ignore[arg-type]


def test_groups_stand_for_their_roots_and_leaves() -> None:
    with a_dag() as dag:
        a = EmptyOperator(task_id="a")
        with TaskGroup("g") as group:
            b, c = EmptyOperator(task_id="b"), EmptyOperator(task_id="c")
            b >> c
            with TaskGroup("h"):
                EmptyOperator(task_id="d")
        e = EmptyOperator(task_id="e")
        a >> group >> e
    assert dag.task_ids == ["a", "g.b", "g.c", "g.h.d", "e"]
    assert edges(dag) == {"ag.b", "g.bg.c", "ag.h.d", "g.ce", "g.h.de"}


def test_a_group_without_prefix() -> None:
    with a_dag() as dag, TaskGroup("g"), TaskGroup("h", prefix_group_id=False):
        op = EmptyOperator(task_id="x")
    assert op.task_id == "g.x"
    assert op.label == "x"
    assert list(dag.group_dict) == ["g", "g.h"]


def test_a_group_needs_a_dag_and_an_id_of_its_own() -> None:
    with pytest.raises(DagError, match="in no DAG"):
        TaskGroup("g")
    with a_dag():
        TaskGroup("g")
        with pytest.raises(DagError, match="already has"):
            TaskGroup("g")


graphs = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30).map(
        lambda pairs: {
            str(i): list(dict.fromkeys(str(b) for a, b in pairs if a == i)) for i in range(n)
        }
    )
)


@given(graphs)
def test_s11_order_or_a_true_cycle(graph: dict[str, list[str]]) -> None:
    order = topological_order(graph)
    cycle = find_cycle(graph)
    if order is None:
        assert cycle[0] == cycle[-1]
        assert len(cycle) > 1
        assert all(b in graph[a] for a, b in pairwise(cycle))
    else:
        assert cycle == []
        place = {node: i for i, node in enumerate(order)}
        assert all(place[a] < place[b] for a, children in graph.items() for b in children)


@given(graphs)
def test_reachable_is_closed(graph: dict[str, list[str]]) -> None:
    seen = reachable(graph, ["0"])
    assert "0" in seen
    assert all(child in seen for node in seen for child in graph[node])


def test_a_very_long_chain_needs_no_recursion() -> None:
    names = [f"t{i}" for i in range(20_000)]
    graph = {a: [b] for a, b in zip(names, [*names[1:], names[0]], strict=True)}
    assert topological_order(graph) is None
    assert len(find_cycle(graph)) == 20_001
