"""The registry of metrics: every name Roost can emit, once (semantics N6-N12, 2D).

Names are Airflow's, so that what reads an Airflow's metrics reads ours. The statsd client checks
names against this table; the statsd_exporter mapping, the dashboards and docs/metrics.md are
made from it or compared with it.

One rule keeps gauges true with several daemons: **a gauge is a fact about the whole installation**,
computed from the database by the one scheduler that reports gauges; what a process says about
itself is a counter or a timer, which the statsd server adds up.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

__all__ = [
    "MAX_NAME",
    "METRICS",
    "Daemon",
    "Kind",
    "Metric",
    "Scope",
    "UnknownMetric",
    "clean_prefix",
    "exporter_labels",
    "exporter_mapping",
    "exporter_name",
    "find",
    "sanitise",
    "wire_name",
]

Kind = Literal["gauge", "counter", "timer"]
Scope = Literal["cluster", "instance"]
Daemon = Literal["scheduler", "triggerer", "worker"]

# Bytes of a whole name, prefix included; a statsd server's file per series has a path limit.
MAX_NAME = 200
_MAX_PREFIX = 64
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]")
_LABEL = re.compile(r"\{(\w+)\}")
# What statsd_exporter takes as the literal parts of a glob.
_MATCHABLE = re.compile(r"[A-Za-z_](-?[A-Za-z0-9_])*(\.[A-Za-z_](-?[A-Za-z0-9_])*)*")
# What Prometheus dashboards of Airflow call the labels.
_EXPORTED = {"pool": "pool_name", "dag": "dag_id", "task": "task_id"}


class UnknownMetric(ValueError):
    """A metric is not in the registry, is of another kind, or has other labels: a bug here."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, or one family of them when the name holds labels.

    Attributes:
        name: Airflow's name without the prefix; ``{label}`` stands for a part that varies.
        kind: ``gauge``, ``counter`` or ``timer``.
        help: what the number means, one sentence.
        unit: what is counted; timers are in milliseconds on the wire.
        daemons: who emits it.
        aggregated: exported as ``af_agg_…``, the name under which statsd_exporter mappings for
            Airflow sum a family over its tasks (N11).
    """

    name: str
    kind: Kind
    help: str
    unit: str
    daemons: tuple[Daemon, ...]
    aggregated: bool = False

    @property
    def scope(self) -> Scope:
        """``cluster``: one reporter for all; ``instance``: every daemon adds its own."""
        return "cluster" if self.kind == "gauge" else "instance"

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names in the order in which the name holds them."""
        return tuple(_LABEL.findall(self.name))

    @property
    def stem(self) -> str:
        """The name up to its first label, e.g. ``pool.open_slots``."""
        return self.name.partition(".{")[0]


_SCHEDULER: tuple[Daemon, ...] = ("scheduler",)
_TRIGGERER: tuple[Daemon, ...] = ("triggerer",)
_WORKER: tuple[Daemon, ...] = ("worker",)
_EVERY: tuple[Daemon, ...] = ("scheduler", "triggerer", "worker")
_TASK = "{queue}.{dag}.{task}"


def _gauge(name: str, unit: str, text: str, *, aggregated: bool = False) -> Metric:
    return Metric(name, "gauge", text, unit, _SCHEDULER, aggregated)


def _counter(
    name: str, unit: str, daemons: tuple[Daemon, ...], text: str, *, aggregated: bool = False
) -> Metric:
    return Metric(name, "counter", text, unit, daemons, aggregated)


def _timer(name: str, text: str) -> Metric:
    return Metric(name, "timer", text, "ms", _SCHEDULER)


METRICS: tuple[Metric, ...] = (
    # The six of the seed note (N6-N11).
    _gauge("executor.open_slots", "slots", "core.parallelism less the tasks that run."),
    _gauge("executor.queued_tasks", "tasks", "Tasks that wait in the executor's queue."),
    _gauge("executor.running_tasks", "tasks", "Tasks that run in the executor."),
    _gauge(
        "scheduler.tasks.starving",
        "tasks",
        "Tasks that could run but for an open slot in their pool, over all pools.",
    ),
    _gauge("scheduler.tasks.executable", "tasks", "Tasks handed to the executor by the last pass."),
    _gauge(
        f"ti.scheduled.{_TASK}",
        "task instances",
        "Task instances that are ready and wait to be queued.",
        aggregated=True,
    ),
    _gauge(
        f"ti.queued.{_TASK}",
        "task instances",
        "Task instances that wait for a worker.",
        aggregated=True,
    ),
    _gauge(f"ti.running.{_TASK}", "task instances", "Task instances that run.", aggregated=True),
    _gauge(
        f"ti.deferred.{_TASK}",
        "task instances",
        "Task instances that wait for their event and hold no slot.",
        aggregated=True,
    ),
    # Pools.
    _gauge("pool.open_slots.{pool}", "slots", "Slots of the pool that are free; -1: no limit."),
    _gauge("pool.queued_slots.{pool}", "slots", "Slots of queued tasks in the pool."),
    _gauge("pool.running_slots.{pool}", "slots", "Slots of running tasks in the pool."),
    _gauge("pool.deferred_slots.{pool}", "slots", "Slots that deferred tasks of the pool gave up."),
    _gauge("pool.scheduled_slots.{pool}", "slots", "Slots that scheduled tasks of the pool want."),
    _gauge("pool.starving_tasks.{pool}", "tasks", "Tasks that lack only a slot of the pool."),
    # Scheduler.
    _counter("scheduler_heartbeat", "beats", _SCHEDULER, "Renewed leases of schedulers."),
    _timer("scheduler.scheduler_loop_duration", "Time of one pass of the scheduler."),
    _gauge("scheduler.dagruns.running", "DAG runs", "DAG runs that are running."),
    _timer("dagrun.duration.success.{dag}", "Time from start to end of a run that succeeded."),
    _timer("dagrun.duration.failed.{dag}", "Time from start to end of a run that failed."),
    _counter("deadline_alerts.deadline_created", "deadlines", _SCHEDULER, "Deadlines of new runs."),
    _counter(
        "deadline_alerts.deadline_missed",
        "deadlines",
        _SCHEDULER,
        "Deadlines that came before their run ended.",
    ),
    _counter(
        "deadline_alerts.deadline_not_missed",
        "deadlines",
        _SCHEDULER,
        "Deadlines whose run ended in time.",
    ),
    # DAG files.
    _gauge("dagbag_size", "DAGs", "DAGs that are known and scheduled."),
    _gauge("dag_processing.import_errors", "files", "DAG files that cannot be imported."),
    _gauge(
        "dag_processing.total_parse_time",
        "s",
        "Time the latest parse of every DAG file took, in sum.",
    ),
    # Task instances.
    _counter(
        "ti.start.{dag}.{task}", "starts", _WORKER, "Started task processes.", aggregated=True
    ),
    _counter(
        "ti.finish.{dag}.{task}.{state}",
        "task instances",
        _SCHEDULER,
        "Task instances that ended, by the state they ended in.",
        aggregated=True,
    ),
    _counter("ti_successes", "task instances", _SCHEDULER, "Task instances that succeeded."),
    _counter("ti_failures", "task instances", _SCHEDULER, "Tries of task instances that failed."),
    _counter(
        "dag.callback_exceptions",
        "exceptions",
        _WORKER,
        "Callbacks that raised.",
    ),
    _counter("worker_heartbeat", "beats", _WORKER, "Renewed leases of workers."),
    # Triggers.
    _counter("triggerer_heartbeat", "beats", _TRIGGERER, "Renewed leases of triggerers."),
    _gauge("triggers.running.{host}", "triggers", "Triggers that the host's triggerers run."),
    _gauge("triggerer.capacity_left.{host}", "triggers", "Triggers the host could run besides."),
    _counter("triggers.succeeded", "triggers", _TRIGGERER, "Triggers that fired an event."),
    _counter("triggers.failed", "triggers", _TRIGGERER, "Triggers that raised or gave no event."),
    _counter(
        "triggers.blocked_main_thread",
        "blocks",
        _TRIGGERER,
        "Times a trigger kept the others waiting.",
    ),
    _counter(
        "triggers.blocked.{dag}.{task}",
        "blocks",
        _TRIGGERER,
        "The same and slow imports of its code, by the trigger's task, or _watchers, _unknown.",
    ),
    _counter(
        "triggers.watcher_events", "triggers", _TRIGGERER, "Asset events that watchers brought."
    ),
    _counter(
        "triggers.watcher_failures",
        "triggers",
        _TRIGGERER,
        "Times a watcher's trigger failed and was begun anew.",
    ),
    _counter("triggers.killed", "triggers", _TRIGGERER, "Triggers whose on_kill() was called."),
    _counter(
        "triggers.kill_errors",
        "triggers",
        _TRIGGERER,
        "Triggers whose on_kill() raised, took too long, could not be called or was given up.",
    ),
    _counter("triggers.polls", "polls", _TRIGGERER, "Polls, each about many triggers."),
    _counter("triggers.poll_errors", "polls", _TRIGGERER, "Polls that failed."),
    _counter("events.taken", "events", _TRIGGERER, "Events from outside that woke somebody."),
    _counter(
        "events.callbacks.{status}",
        "requests",
        _TRIGGERER,
        "Requests at the callback port, by the status of HTTP that answered them.",
    ),
    # The client itself.
    _counter("statsd.dropped", "metrics", _EVERY, "Metrics that could not be sent."),
)

_BY_NAME = {metric.name: metric for metric in METRICS} | {metric.stem: metric for metric in METRICS}


def find(name: str, kind: Kind | None = None) -> Metric:
    """The metric called ``name``, with or without its ``{label}`` parts.

    Raises:
        UnknownMetric: there is none, or it is of another kind.
    """
    metric = _BY_NAME.get(name)
    if metric is None:
        raise UnknownMetric(f"metric {name!r} is not in roost.support.metrics.METRICS")
    if kind is not None and metric.kind != kind:
        raise UnknownMetric(f"metric {name!r} is a {metric.kind}, not a {kind}")
    return metric


def sanitise(text: str) -> str:
    """Text as a part of a metric name: ``_`` for what a statsd line or path cannot hold."""
    return _FORBIDDEN.sub("_", text)


def clean_prefix(prefix: str) -> str:
    """``statsd.prefix`` as it goes on the wire: harmless, bounded, no dot at either end."""
    return sanitise(prefix)[:_MAX_PREFIX].strip(".")


def wire_name(metric: Metric, labels: dict[str, str], prefix: str = "") -> str:
    """The name on the wire: at most 200 bytes, with exactly one dotted part for each label.

    A dot within a label value becomes ``_``, so that a task of a group does not change how many
    parts the name has. A value too long is cut and gets a hash, so that two stay two.

    Raises:
        UnknownMetric: the labels are not the metric's.
    """
    wanted = metric.labels
    if len(labels) != len(wanted) or any(label not in labels for label in wanted):
        raise UnknownMetric(f"metric {metric.name!r} takes the labels {wanted}, not {labels}")
    head = f"{clean_prefix(prefix)}.".removeprefix(".") + metric.stem
    if not wanted:
        return head
    room = (MAX_NAME - len(head)) // len(wanted) - 1
    return ".".join([head, *(_part(labels[label], room) for label in wanted)])


def _part(value: str, room: int) -> str:
    part = sanitise(value).replace(".", "_") or "_"
    if len(part) <= room:
        return part
    digest = sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{part[: room - 9]}-{digest}"


def exporter_name(metric: Metric, prefix: str) -> str:
    """The Prometheus name that our statsd_exporter mapping gives the metric.

    The seed note reads ``airflow_executor_open_slots`` beside ``af_agg_ti_scheduled`` (N6-N11).
    """
    head = re.sub(r"[^A-Za-z0-9_]", "_", clean_prefix(prefix))
    if metric.aggregated:
        head = "af_agg" if prefix == "airflow" else f"{head}_agg"
    return f"{head}_{metric.stem}".lstrip("_").replace(".", "_").replace("-", "_")


def exporter_labels(metric: Metric) -> tuple[str, ...]:
    """The Prometheus label names of the metric, in the order of its labels."""
    return tuple(_EXPORTED.get(label, label) for label in metric.labels)


def exporter_mapping(prefix: str) -> str:
    """The statsd_exporter mapping (YAML) for an installation with this ``statsd.prefix``.

    Raises:
        ValueError: statsd_exporter cannot match this prefix, e.g. an empty one.
    """
    prefix = clean_prefix(prefix)
    if not _MATCHABLE.fullmatch(prefix):
        raise ValueError(f"statsd_exporter cannot match the prefix {prefix!r}; use letters and _")
    lines = [
        f"# statsd_exporter mapping for statsd.prefix = {json.dumps(prefix)}.",
        "# Made from the metric registry by deploy.generate; do not edit.",
        "mappings:",
    ]
    for metric in METRICS:
        match = ".".join([prefix, metric.stem, *("*" for _ in metric.labels)])
        kind = "observer" if metric.kind == "timer" else metric.kind
        lines += [
            f"- match: {json.dumps(match)}",
            f"  match_metric_type: {kind}",
            f"  name: {json.dumps(exporter_name(metric, prefix))}",
            f"  help: {json.dumps(metric.help)}",
        ]
        if metric.kind == "timer":
            lines.append("  observer_type: summary")
        if metric.labels:
            lines.append("  labels:")
            lines += [
                f'    {label}: "${number}"'
                for number, label in enumerate(exporter_labels(metric), start=1)
            ]
    return "\n".join(lines) + "\n"
