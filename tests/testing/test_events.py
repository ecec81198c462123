"""Events from outside in ``roost.testing`` and ``dags test``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from roost.cli.main import cli
from roost.dag import DAG
from roost.exceptions import RoostException
from roost.operators import BaseOperator
from roost.sensors import ExternalEventSensor
from roost.testing import Simulation, SimulationStuck
from roost.triggers import ExternalTrigger, callback_url

START = datetime(2026, 1, 1, tzinfo=UTC)


class Job(BaseOperator):
    """Gives away a URL and waits for its event."""

    urls: list[str] = []  # noqa: RUF012 - of the test

    def execute(self, context: dict[str, Any]) -> None:
        key = f"job/{context['dispatch_id']}"
        self.urls.append(callback_url(key))
        self.defer(trigger=ExternalTrigger(key), method_name="done")

    def done(self, context: dict[str, Any], event: Any) -> Any:
        return event


def waiting(**options: Any) -> DAG:
    with DAG("d", schedule=None) as dag:
        ExternalEventSensor(task_id="wait", key="orders/{{ ds }}", **options)
    return dag


def test_an_event_wakes_the_sensor_at_its_moment() -> None:
    with Simulation(waiting(), start=START) as sim:
        run = sim.trigger()
        sim.advance(timedelta(hours=2))
        assert run["wait"].state == "deferred"
        sim.send_event("orders/2026-01-01", {"rows": 42})
        sim.run()
        assert run.state == "success"
        assert run["wait"].xcom() == {"rows": 42}
        assert run.end_date == START + timedelta(hours=2)


def test_an_event_sent_before_is_kept_for_a_day() -> None:
    with Simulation(waiting(timeout=None), start=START) as sim:
        sim.send_event("orders/2026-01-01", "early")
        sim.advance(timedelta(hours=23))
        run = sim.trigger(logical_date=START)
        sim.run()
        assert run["wait"].xcom() == "early"
        sim.send_event("orders/2026-01-01", "gone by then")
        sim.advance(timedelta(hours=25))
        later = sim.trigger(logical_date=START, run_id="later")
        with pytest.raises(SimulationStuck):
            sim.run()
        assert later["wait"].state == "deferred"


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
def test_d6_the_sensor_times_out(soft_fail: bool, state: str) -> None:
    dag = waiting(timeout=timedelta(hours=1), soft_fail=soft_fail, retries=3)
    with Simulation(dag, start=START) as sim:
        run = sim.trigger()
        sim.run()
        assert run["wait"].state == state
        assert run["wait"].tries == 1
        assert run["wait"].end_date == START + timedelta(hours=1)


def test_a_url_of_a_task_is_good_for_one_event() -> None:
    Job.urls.clear()
    with DAG("d", schedule=None) as dag:
        Job(task_id="job")
    with Simulation(dag, start=START) as sim:
        run = sim.trigger()
        sim.advance(timedelta(minutes=1))
        (url,) = Job.urls
        sim.send_event(url, [1, 2])
        with pytest.raises(RoostException, match="used before"):
            sim.send_event(url, [3])
        sim.run()
        assert run["job"].xcom() == [1, 2]
        sim.advance(timedelta(days=2))
        with pytest.raises(RoostException, match="expired"):
            sim.send_event(url)


def test_a_bad_key_fails_the_task_and_says_why() -> None:
    with DAG("d", schedule=None) as dag:
        ExternalEventSensor(task_id="wait", key="roost:{{ ds }}")
    with Simulation(dag, start=START) as sim:
        run = sim.trigger()
        sim.run()
        assert run["wait"].state == "failed"
        assert "Roost's own" in (run["wait"].error or "")


FILE = """
from roost.dag import DAG
from roost.sensors import ExternalEventSensor

with DAG("outside", schedule=None):
    ExternalEventSensor(task_id="one", key="a") >> ExternalEventSensor(task_id="two", key="a")
"""


def in_process(home: Path, *args: str) -> Any:
    file = home / "f.py"
    file.write_text(FILE)
    command = ["dags", "test", "outside", "-f", str(file), *args]
    return CliRunner().invoke(cli, command, env={"ROOST_HOME": str(home)})


def test_dags_test_takes_events_in_their_order(tmp_path: Path) -> None:
    done = in_process(tmp_path, "--event", 'a={"n": 1}', "--event", "a=2")
    assert done.exit_code == 0, done.output
    missing = in_process(tmp_path, "--event", "a=1")
    assert missing.exit_code == 1
    assert "no event 'a' was given: --event a=JSON" in missing.output
    wrong = in_process(tmp_path, "--event", "a")
    assert wrong.exit_code == 2
    assert "'a' is not KEY=JSON" in wrong.output
