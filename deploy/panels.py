"""What the dashboards show, panel by panel, in the terms of the metric registry.

Whoever adds a metric adds it to a panel here (a test finds what is missing) and runs
``python -m deploy.generate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from roost.support.metrics import Metric, find

__all__ = ["PANELS", "Panel", "Query", "Show"]

Show = Literal["value", "per minute", "mean", "worst"]


@dataclass(frozen=True, slots=True)
class Query:
    """One metric of a panel.

    Attributes:
        name: the metric's stem, e.g. ``pool.open_slots``.
        legend: what its line is called; goes after the label's value when there is ``by``.
        by: the label whose values get a line each; the others are summed.
        show: the value of a gauge, events of a counter per minute, mean or worst of a timer.
    """

    name: str
    legend: str
    by: str | None = None
    show: Show = "value"

    @property
    def metric(self) -> Metric:
        return find(self.name)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: a title, a sentence, and its queries."""

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 12


PANELS = (
    Panel(
        "Executor slots",
        "Open slots are core.parallelism less running tasks; deferred tasks hold none.",
        (
            Query("executor.open_slots", "open"),
            Query("executor.running_tasks", "running"),
            Query("executor.queued_tasks", "queued"),
        ),
    ),
    Panel(
        "Starving and executable tasks",
        "Starving: ready but for a slot in their pool. Executable: handed over by the last pass.",
        (
            Query("scheduler.tasks.starving", "starving"),
            Query("scheduler.tasks.executable", "executable"),
        ),
    ),
    Panel(
        "Task instances by state",
        "All DAGs together.",
        tuple(
            Query(f"ti.{state}", state) for state in ("scheduled", "queued", "running", "deferred")
        ),
    ),
    Panel("Scheduled by DAG", "Ready and waiting.", (Query("ti.scheduled", "", by="dag"),)),
    Panel("Deferred by DAG", "Waiting for an event.", (Query("ti.deferred", "", by="dag"),)),
    Panel("Queued by queue", "Waiting for a worker.", (Query("ti.queued", "", by="queue"),)),
    Panel(
        "Triggers",
        "What the triggerers of each host run, and could run besides.",
        (
            Query("triggers.running", "running", by="host"),
            Query("triggerer.capacity_left", "left", by="host"),
        ),
    ),
    Panel(
        "Triggers that ended",
        "Per minute; blocked: kept the others from running for a while.",
        (
            Query("triggers.succeeded", "succeeded", show="per minute"),
            Query("triggers.failed", "failed", show="per minute"),
            Query("triggers.blocked_main_thread", "blocked", show="per minute"),
            Query("triggers.blocked", "blocked by", by="task", show="per minute"),
            Query("triggers.killed", "on_kill() called", show="per minute"),
            Query("triggers.kill_errors", "on_kill() that failed", show="per minute"),
            Query("events.taken", "events from outside", show="per minute"),
            Query("triggers.polls", "polls about many", show="per minute"),
            Query("triggers.poll_errors", "polls that failed", show="per minute"),
            Query("events.callbacks", "callbacks", by="status", show="per minute"),
            Query("triggers.watcher_events", "events of watchers", show="per minute"),
            Query("triggers.watcher_failures", "watchers that failed", show="per minute"),
        ),
    ),
    Panel(
        "Pool slots",
        "By pool and use.",
        tuple(
            Query(f"pool.{use}_slots", use, by="pool")
            for use in ("open", "running", "queued", "deferred", "scheduled")
        ),
    ),
    Panel(
        "Pool starvation",
        "Tasks that lack only a slot of the pool.",
        (Query("pool.starving_tasks", "", by="pool"),),
    ),
    Panel(
        "Heartbeats",
        "Renewed leases per minute; a line at 0 is a daemon that is gone.",
        tuple(
            Query(f"{daemon}_heartbeat", daemon, show="per minute")
            for daemon in ("scheduler", "triggerer", "worker")
        ),
    ),
    Panel(
        "Tasks started and ended",
        "Per minute.",
        (
            Query("ti.start", "started", show="per minute"),
            Query("ti_successes", "succeeded", show="per minute"),
            Query("ti_failures", "failed", show="per minute"),
        ),
    ),
    Panel(
        "Ends by state",
        "Task instances per minute.",
        (Query("ti.finish", "", by="state", show="per minute"),),
    ),
    Panel("DAG runs", "Running now.", (Query("scheduler.dagruns.running", "running"),)),
    Panel(
        "Duration of DAG runs",
        "Mean from start to end.",
        (
            Query("dagrun.duration.success", "success", by="dag", show="mean"),
            Query("dagrun.duration.failed", "failed", by="dag", show="mean"),
        ),
        unit="duration",
    ),
    Panel(
        "Scheduler pass",
        "How long one pass takes.",
        (
            Query("scheduler.scheduler_loop_duration", "mean", show="mean"),
            Query("scheduler.scheduler_loop_duration", "worst", show="worst"),
        ),
        unit="duration",
    ),
    Panel(
        "DAG files",
        "DAGs known, and files that cannot be imported.",
        (Query("dagbag_size", "DAGs"), Query("dag_processing.import_errors", "import errors")),
    ),
    Panel(
        "Parsing",
        "Time of the latest parse of every file, in sum.",
        (Query("dag_processing.total_parse_time", "parse time"),),
        unit="s",
    ),
    Panel(
        "Deadlines and callbacks",
        "Per minute; missed deadlines and callbacks that raised want a look.",
        (
            Query("deadline_alerts.deadline_created", "deadlines set", show="per minute"),
            Query("deadline_alerts.deadline_missed", "missed", show="per minute"),
            Query("deadline_alerts.deadline_not_missed", "met", show="per minute"),
            Query("dag.callback_exceptions", "callbacks that raised", show="per minute"),
        ),
        width=24,
    ),
    Panel(
        "Lost metrics",
        "Metrics per minute that did not reach the statsd server.",
        (Query("statsd.dropped", "dropped", show="per minute"),),
        width=24,
    ),
)
