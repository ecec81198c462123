"""What a query of a panel must show, worked out from what was emitted."""

from __future__ import annotations

from collections.abc import Iterable

from deploy.panels import Query
from roost.support.metrics import wire_name
from tests.deploy.emitted import Emitted


def expected(query: Query, told: Iterable[Emitted]) -> dict[str, float]:
    """Legend -> number, when every counter and timer was hit once in each second.

    Timers are in milliseconds here.
    """
    groups: dict[str, list[float]] = {}
    for metric, labels, value in told:
        if metric != query.metric:
            continue
        legend = query.legend
        if query.by:
            # The wire's spelling of the label: what both stores know.
            parts = wire_name(metric, labels).removeprefix(metric.stem + ".").split(".")
            legend = f"{parts[metric.labels.index(query.by)]} {query.legend}".strip()
        groups.setdefault(legend, []).append(value)
    return {legend: _shown(query, values) for legend, values in groups.items()}


def _shown(query: Query, values: list[float]) -> float:
    match query.show:
        case "value":
            return sum(values)
        case "per minute":
            return 60 * sum(values)
        case "mean":
            return sum(values) / len(values)
        case "worst":
            return max(values)
