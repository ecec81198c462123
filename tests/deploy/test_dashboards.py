"""The Grafana dashboards: their structure, and every query against what the client sends."""

from __future__ import annotations

import json
from typing import Any

import promql_parser
import pytest

from deploy.generate import HERE, PREFIXES
from deploy.panels import PANELS
from roost.support.metrics import METRICS, exporter_labels, exporter_name
from tests.deploy.emitted import wire_lines
from tests.deploy.minigraphite import render, statsd_paths
from tests.deploy.panels import expected

KINDS = ("prometheus", "graphite")
ALL = [(prefix, kind) for prefix in PREFIXES for kind in KINDS]
SIX = (
    "executor.open_slots",
    "executor.queued_tasks",
    "executor.running_tasks",
    "scheduler.tasks.starving",
    "scheduler.tasks.executable",
    "ti.scheduled",
)


def load(prefix: str, kind: str) -> dict[str, Any]:
    text = (HERE / f"grafana/{prefix}-{kind}.json").read_text(encoding="utf-8")
    board: dict[str, Any] = json.loads(text)
    return board


@pytest.mark.parametrize(("prefix", "kind"), ALL)
def test_the_structure_is_one_that_grafana_imports(prefix: str, kind: str) -> None:
    board = load(prefix, kind)
    assert board["schemaVersion"] >= 36
    assert 0 < len(board["uid"]) <= 40
    assert "id" not in board  # an id of another Grafana would overwrite a dashboard
    (variable,) = board["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", kind)
    source = {"type": kind, "uid": "${" + variable["name"] + "}"}
    taken: set[tuple[int, int]] = set()
    for number, panel in enumerate(board["panels"], start=1):
        assert panel["id"] == number
        assert panel["type"] == "timeseries"
        assert panel["title"] and panel["description"]
        assert panel["datasource"] == source
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGHIJKL")[
            : len(panel["targets"])
        ]
        assert all(target["datasource"] == source for target in panel["targets"])


def test_every_metric_is_on_a_panel_the_six_of_the_seed_note_first() -> None:
    shown = [query.metric.name for panel in PANELS for query in panel.queries]
    assert set(shown) == {metric.name for metric in METRICS}
    first = [query.name for panel in PANELS[:3] for query in panel.queries]
    assert set(SIX) <= set(first)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_graphite_query_gives_the_numbers_that_were_sent(prefix: str) -> None:
    told, lines = wire_lines(prefix)
    store = statsd_paths(lines)
    for panel, drawn in zip(PANELS, load(prefix, "graphite")["panels"], strict=True):
        for query, target in zip(panel.queries, drawn["targets"], strict=True):
            assert render(target["target"], store) == pytest.approx(expected(query, told))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_promql_query_asks_for_series_that_exist_and_in_the_way_of_their_kind(
    prefix: str,
) -> None:
    """Parsed by a PromQL parser; test_stores.py runs the same queries where a store is."""
    series: dict[str, tuple[str, str, set[str]]] = {}
    for metric in METRICS:
        name = exporter_name(metric, prefix)
        labels = set(exporter_labels(metric))
        ends = ("_sum", "_count", "") if metric.kind == "timer" else ("",)
        series |= {name + end: (metric.kind, end, labels) for end in ends}
    for panel, drawn in zip(PANELS, load(prefix, "prometheus")["panels"], strict=True):
        for query, target in zip(panel.queries, drawn["targets"], strict=True):
            text = target["expr"].replace("$__rate_interval", "1m")
            asked = selectors(promql_parser.parse(text))
            assert asked
            for name, by, rated, matched in asked:
                kind, end, labels = series[name]
                assert name.startswith(exporter_name(query.metric, prefix))
                assert rated == (kind == "counter" or end != "")
                assert set(by) <= labels
                assert matched == ({"quantile": "0.99"} if kind == "timer" and not end else {})
                in_legend = [
                    label for label in labels if "{{" + label + "}}" in target["legendFormat"]
                ]
                assert in_legend == list(by)


def selectors(
    node: Any, by: tuple[str, ...] = (), rated: bool = False
) -> list[tuple[str, tuple[str, ...], bool, dict[str, str]]]:
    """Every series an expression reads: name, labels it is summed by, below rate(), matchers."""
    match type(node).__name__:
        case "VectorSelector":
            matched = {one.name: one.value for one in node.matchers.matchers}
            return [(node.name, by, rated, matched)]
        case "MatrixSelector":
            return selectors(node.vector_selector, by, rated)
        case "AggregateExpr":
            by = tuple(node.modifier.labels) if node.modifier else ()
            return selectors(node.expr, by, rated)
        case "BinaryExpr":
            return selectors(node.lhs, by, rated) + selectors(node.rhs, by, rated)
        case "Call":
            assert node.func.name == "rate"
            return [found for arg in node.args for found in selectors(arg, by, True)]
        case "NumberLiteral":
            return []
        case other:
            raise AssertionError(f"not used in our dashboards: {other}")
