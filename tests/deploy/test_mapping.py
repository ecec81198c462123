"""The statsd_exporter mapping, fed with what the real client sends (N6-N12, 2D)."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.generate import HERE, PREFIXES, files
from roost.support.metrics import (
    METRICS,
    UnknownMetric,
    exporter_labels,
    exporter_mapping,
    exporter_name,
    find,
)
from tests.deploy.emitted import wire_lines
from tests.deploy.exporter import Exporter

MADE = [(prefix, name) for prefix in PREFIXES for name in files(prefix)]


@pytest.mark.parametrize(("prefix", "name"), MADE, ids=[name for _, name in MADE])
def test_the_committed_files_are_what_the_registry_makes(prefix: str, name: str) -> None:
    """Run ``python -m deploy.generate`` after changing the registry or a panel."""
    assert (HERE / name).read_text(encoding="utf-8") == files(prefix)[name]


def test_no_other_file_lies_beside_them() -> None:
    found = {
        str(path.relative_to(HERE))
        for folder in ("grafana", "statsd_exporter")
        for path in Path(HERE, folder).iterdir()
    }
    assert found == {name for _, name in MADE}


def test_the_six_names_of_the_seed_note_read_exactly() -> None:
    """N6-N12, with prefix ``airflow``: dashboards that read these names go on as they are."""
    exporter = Exporter((HERE / "statsd_exporter/airflow.yml").read_text(encoding="utf-8"))
    lines = {
        "airflow.executor.open_slots:30|g": "airflow_executor_open_slots",
        "airflow.executor.queued_tasks:0|g": "airflow_executor_queued_tasks",
        "airflow.executor.running_tasks:2|g": "airflow_executor_running_tasks",
        "airflow.scheduler.tasks.starving:4|g": "airflow_scheduler_tasks_starving",
        "airflow.scheduler.tasks.executable:3|g": "airflow_scheduler_tasks_executable",
        "airflow.ti.scheduled.default.etl.load:5|g": "af_agg_ti_scheduled",
    }
    for line, name in lines.items():
        mapped = exporter.map(line)
        assert (mapped.name, mapped.kind) == (name, "gauge")
        assert mapped.rule is not None
    assert dict(exporter.map("airflow.ti.scheduled.default.etl.load:5|g").labels) == {
        "queue": "default",
        "dag_id": "etl",
        "task_id": "load",
    }


@pytest.mark.parametrize("prefix", ["airflow", "roost", "team-a.prod"])
def test_every_line_the_client_sends_is_mapped_to_its_own_name_and_labels(prefix: str) -> None:
    exporter = Exporter(exporter_mapping(prefix))
    told, lines = wire_lines(prefix)
    assert len(lines) == len(told)
    mapped = [exporter.map(line) for line in lines]
    assert all(one.rule is not None for one in mapped)
    by_value = {(one.kind, round(one.value, 6)): one for one in mapped}
    for metric, labels, value in told:
        kind = "observer" if metric.kind == "timer" else metric.kind
        one = by_value[kind, value / 1000 if metric.kind == "timer" else value]
        assert one.name == exporter_name(metric, prefix)
        assert one.rule is not None
        assert one.rule["help"] == metric.help
        wire = {
            label: labels[name].replace(".", "_").replace("ö", "_")
            for name, label in zip(metric.labels, exporter_labels(metric), strict=True)
        }
        assert dict(one.labels) == wire


def test_a_prefix_that_cannot_be_matched_is_refused() -> None:
    for prefix in ("", "...", "1st", "a..b"):
        with pytest.raises(ValueError, match="cannot match the prefix"):
            exporter_mapping(prefix)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_no_two_metrics_share_a_name_on_either_side(prefix: str) -> None:
    stems = sorted(metric.stem for metric in METRICS)
    names = sorted(exporter_name(metric, prefix) for metric in METRICS)
    for found in (stems, names):
        assert len(set(found)) == len(found)
    # "a.b" beside "a.b.{x}" would make a path of Graphite a leaf and a folder at once.
    assert not any(longer.startswith(stem + ".") for stem in stems for longer in stems)


def test_gauges_are_facts_about_the_installation_and_have_one_reporter() -> None:
    """#26601, #71561: gauges of two schedulers overwrote each other."""
    for metric in METRICS:
        assert metric.scope == ("cluster" if metric.kind == "gauge" else "instance")
        if metric.kind == "gauge":
            assert metric.daemons == ("scheduler",)


def test_a_metric_is_found_with_and_without_its_labels() -> None:
    assert find("pool.open_slots") is find("pool.open_slots.{pool}", "gauge")
    with pytest.raises(UnknownMetric):
        find("pool.open_slots.default_pool")
