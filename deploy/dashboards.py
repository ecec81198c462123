"""Grafana dashboards over the metric registry, for Prometheus and for Graphite.

What a panel shows is said once, in :mod:`deploy.panels`; :class:`Prometheus` and
:class:`Graphite` say how their store spells it.
"""

from __future__ import annotations

from typing import Any, Protocol

from deploy.panels import PANELS, Query
from roost.support.metrics import exporter_labels, exporter_name

__all__ = ["STORES", "dashboard"]


class Store(Protocol):
    """How one kind of metrics store is asked."""

    kind: str
    duration_unit: str

    def target(self, query: Query, prefix: str) -> dict[str, Any]:
        """The fields of a Grafana target that ask for ``query``."""


class Prometheus:
    """PromQL over what statsd_exporter makes of the metrics with our mapping."""

    kind = "prometheus"
    duration_unit = "s"  # statsd_exporter turns milliseconds into seconds

    def target(self, query: Query, prefix: str) -> dict[str, Any]:
        name = exporter_name(query.metric, prefix)
        names = dict(zip(query.metric.labels, exporter_labels(query.metric), strict=True))
        label = names[query.by] if query.by else None
        total = f"sum by ({label})" if label else "sum"
        expr = {
            "value": f"{total} ({name})" if query.metric.labels else name,
            "per minute": f"{total} (rate({name}[$__rate_interval])) * 60",
            "mean": f"{total} (rate({name}_sum[$__rate_interval]))"
            f" / {total} (rate({name}_count[$__rate_interval]))",
            "worst": f'max ({name}{{quantile="0.99"}})',
        }[query.show]
        legend = f"{{{{{label}}}}} {query.legend}".strip() if label else query.legend
        return {"expr": expr, "legendFormat": legend, "range": True}


class Graphite:
    """Graphite functions over the paths of a statsd server with its default name spaces."""

    kind = "graphite"
    duration_unit = "ms"

    def target(self, query: Query, prefix: str) -> dict[str, Any]:
        metric = query.metric
        space = {
            "value": "stats.gauges",
            "per minute": "stats",  # rates per second
            "mean": "stats.timers",
            "worst": "stats.timers",
        }[query.show]
        end = {"mean": ".mean", "worst": ".upper"}.get(query.show, "")
        first = f"{space}.{prefix}.{metric.stem}"
        found = first + ".*" * len(metric.labels) + end
        if query.show == "per minute":
            found = f"scale({found}, 60)"
        if query.by:
            node = first.count(".") + 1 + metric.labels.index(query.by)
            how = "average" if query.show == "mean" else "sum"
            found = f"groupByNode({found}, {node}, '{how}')"
            # The end of a name becomes the legend, so it follows the label's value.
            found = f"aliasSub({found}, '$', ' {query.legend}')" if query.legend else found
        else:
            found = f"sumSeries({found})" if metric.labels else found
            found = f"alias({found}, '{query.legend}')"
        return {"target": found, "textEditor": True}


STORES: tuple[Store, ...] = (Prometheus(), Graphite())


def dashboard(store: Store, prefix: str) -> dict[str, Any]:
    """A Grafana dashboard for an installation with this ``statsd.prefix``, ready to import."""
    source = {"type": store.kind, "uid": "${datasource}"}
    panels = []
    left = top = 0
    for number, panel in enumerate(PANELS, start=1):
        unit = store.duration_unit if panel.unit == "duration" else panel.unit
        panels.append(
            {
                "id": number,
                "type": "timeseries",
                "title": panel.title,
                "description": panel.text,
                "datasource": source,
                "gridPos": {"x": left, "y": top, "w": panel.width, "h": 8},
                "fieldConfig": {
                    "defaults": {
                        "unit": unit,
                        "min": 0,
                        "custom": {"drawStyle": "line", "fillOpacity": 10, "showPoints": "never"},
                    },
                    "overrides": [],
                },
                "options": {
                    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                    "tooltip": {"mode": "multi", "sort": "desc"},
                },
                "targets": [
                    {"refId": chr(ord("A") + place), "datasource": source}
                    | store.target(query, prefix)
                    for place, query in enumerate(panel.queries)
                ],
            }
        )
        left += panel.width
        if left >= 24:
            left, top = 0, top + 8
    return {
        "title": f"Roost ({prefix}, {store.kind})",
        "uid": f"roost-{prefix}-{store.kind}"[:40],
        "tags": ["roost"],
        "description": "Made from the metric registry by deploy.generate.",
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": store.kind,
                    "refresh": 1,
                    "hide": 0,
                }
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }
