"""Everything at once with real processes: mapping, waiting, edits, backfill, killed daemons."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.models.engine import open_engine
from tests.e2e.witness import bodies, overlapping
from tests.support.checker import violations
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.processes import with_environment
from tests.support.waiting import wait_until

_SOURCE = """\
import os
import time
from datetime import datetime, timedelta
from pathlib import Path

from roost.dag import DAG, Asset, setup, task, task_group, teardown
from roost.operators import BaseOperator, SubDagOperator, TriggerDagRunOperator
from roost.support.processes import start_ticks
from roost.triggers import FileTrigger, TimeDeltaTrigger

HOME = Path(__file__).parents[1]
START = datetime(2026, 1, 1)
made = Asset("made")


def write(name, *words):
    file = os.open(HOME / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (" ".join(map(str, words)) + "\\n").encode())
    os.close(file)


class body:
    # Notes begin and end, and whether another process of the same task instance lives.
    def __init__(self, context, phase="execute"):
        ti = context["ti"]
        self.key = f"{ti.dag_id}/{ti.task_id}/{ti.map_index}/{context['run_id']}"
        self.phase, self.dispatch = phase, context["dispatch_id"]

    def __enter__(self):
        seen = HOME / "alive" / self.key.replace("/", "%")
        for line in seen.read_text().splitlines() if seen.exists() else []:
            pid, ticks = map(int, line.split())
            if start_ticks(pid) == ticks:
                write("doubles", self.key, pid, "lives beside", os.getpid())
        write(seen, os.getpid(), start_ticks(os.getpid()))
        write("witness", self.key, self.phase, "begin", self.dispatch, time.monotonic_ns())

    def __exit__(self, *error):
        write("witness", self.key, self.phase, "end", self.dispatch, time.monotonic_ns())


def told(context):
    write("callbacks", context["dag"].dag_id, context["ti"].task_id, context["ti"].state)


def ended(context):
    write("callbacks", context["dag"].dag_id, "run", context["reason"])


class Waiting(BaseOperator):
    template_fields = ("wait",)

    def __init__(self, *, wait, **others):
        super().__init__(**others)
        self.wait = wait

    def execute(self, context):
        with body(context):
            trigger = TimeDeltaTrigger(timedelta(seconds=1))
            if self.wait == "flag":
                trigger = FileTrigger(str(HOME / "flag"), poke_interval=0.2)
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context, event=None):
        with body(context, "resume"):
            return self.wait


@task
def work():
    with body(get()):
        time.sleep(0.05)


def get():
    from roost.dag import get_current_context

    return get_current_context()


def section():
    with DAG("main.section", schedule="@daily", start_date=START) as dag:
        work.override(task_id="inside", pool="two")()
    return dag


with DAG("main", schedule=None, start_date=START, max_active_tasks=50, on_success_callback=ended):

    @task(retries=1, retry_delay=timedelta(milliseconds=100))
    def numbers(try_number):
        with body(get()):
            if try_number == 1:
                raise RuntimeError("the first try fails")
            return list(range(30))

    @task(pool="two")
    def square(n):
        with body(get()):
            time.sleep(0.15)
            return n * n

    @task(on_success_callback=told)
    def total(values):
        with body(get()):
            return sum(values)

    @task
    def waits():
        return ["time", "flag", "time", "flag"]

    @task_group
    def each(wait):
        @task(retries=1, retry_delay=timedelta(milliseconds=100), max_active_tis_per_dagrun=1)
        def after(try_number, wait):
            with body(get()):
                if try_number == 1:
                    raise RuntimeError("the first try fails")

        after(Waiting(task_id="until", wait=wait).output)

    @task
    def held():
        with body(get()):
            while not (HOME / "flag").exists():
                time.sleep(0.02)

    @task.branch
    def choose():
        return "left"

    @setup
    def create():
        with body(get()):
            pass

    @teardown
    def delete():
        with body(get()):
            pass

    @task(on_failure_callback=told)
    def bad():
        with body(get()):
            raise RuntimeError("for good")

    @task(trigger_rule="all_done", outlets=[made])
    def last():
        with body(get()):
            pass

    with create() >> delete():
        inner = work.override(task_id="used")()
    found = total(square.expand(n=numbers()))
    left, right = work.override(task_id="left")(), work.override(task_id="right")()
    choose() >> [left, right]
    [
        found,
        each.expand(wait=waits()),
        held(),
        left,
        right,
        inner,
        bad(),
        SubDagOperator(task_id="section", subdag=section(), pool="two"),
        TriggerDagRunOperator(task_id="other", trigger_dag_id="other", wait_for_completion=True),
    ] >> last()

with DAG("other", schedule=None, start_date=START):
    work()

with DAG("listener", schedule=made):
    work()

with DAG("daily", schedule="@daily", start_date=datetime(2199, 1, 1)):
    work.override(pool="two", depends_on_past=True)()
"""

_RUNS = "SELECT dag_id, run_id, run_type, state FROM dag_run"
_DAGS = {"main", "main.section", "other", "listener", "daily"}


class Watched:
    """The daemons, the database they share, and what the checker said of it meanwhile."""

    def __init__(self, daemons: Daemons, url: str) -> None:
        self.daemons, self.url = daemons, url
        self.engine = open_engine(url)
        self.running = dict(
            zip(("scheduler", "triggerer", "worker"), daemons.start_all(), strict=True)
        )

    def check(self) -> None:
        assert violations(self.engine) == []

    def crash(self, kind: str) -> None:
        """SIGKILL one daemon and start another in its place, while the invariants hold."""
        self.running[kind].kill()
        self.check()
        self.running[kind] = self.daemons.start(kind)
        self.check()

    def instances(self, task: str, state: str) -> list[int]:
        """The map indexes of ``main``'s task that are in a state."""
        rows = fetch(
            self.url,
            "SELECT map_index FROM task_instance AS ti JOIN dag_run ON dag_run.id = dag_run_id "
            "WHERE dag_id = 'main' AND task_id = :task AND ti.state = :state ORDER BY map_index",
            task=task,
            state=state,
        )
        return [row["map_index"] for row in rows]

    def ended(self) -> bool:
        """Whether every run and callback has ended, those included that are yet to begin."""
        runs = fetch(self.url, _RUNS)
        waiting = fetch(self.url, "SELECT 1 FROM dispatch WHERE NOT settled LIMIT 1")
        done = all(run["state"] in ("success", "failed") for run in runs)
        return done and not waiting and any(run["dag_id"] == "listener" for run in runs)


def expected_bodies() -> set[tuple[str, str]]:
    """Task instance and method of everything that has to run at least once."""
    tasks = ["numbers/-1", "total/-1", "held/-1", "create/-1", "used/-1", "delete/-1", "bad/-1"]
    tasks += ["left/-1", "last/-1", *(f"square/{place}" for place in range(30))]
    tasks += [f"each.{task}/{place}" for task in ("until", "after") for place in range(4)]
    found = {(f"main/{task}/r", "execute") for task in tasks}
    found |= {(f"main/each.until/{place}/r", "resume") for place in range(4)}
    found.add(("main.section/inside/-1/r", "execute"))
    found.add(("other/work/-1/triggered__main.other__r", "execute"))
    for day in range(1, 6):
        found.add((f"daily/work/-1/backfill__2026-01-0{day}T00:00:00+00:00", "execute"))
    return found


def check_notes(home: Path) -> None:
    """No two live copies, every body at least once, and every callback."""
    assert not (home / "doubles").exists(), (home / "doubles").read_text()
    found = bodies(home / "witness")
    assert overlapping(found) == []
    ran = {(body.task_id, body.phase) for body in found if body.ended is not None}
    listening = {name for name, _ in ran if name.split("/")[:3] == ["listener", "work", "-1"]}
    assert listening
    assert {one for one in ran if one[0] not in listening} == expected_bodies()
    told = set((home / "callbacks").read_text().splitlines())
    assert told == {"main total success", "main bad failed", "main run success"}


@pytest.mark.timeout(180)
def test_everything_at_once_while_each_daemon_is_killed(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    (roost_home / "alive").mkdir()
    (roost_home / "dags" / "d.py").write_text(_SOURCE)
    daemons.cli("pools", "set", "two", "2")
    watched = Watched(daemons, database_url)
    wait_until(
        lambda: {row["dag_id"] for row in fetch(database_url, "SELECT dag_id FROM dag")} == _DAGS,
        what="the DAGs",
    )
    daemons.cli("dags", "trigger", "main", "--run-id", "r")
    wait_until(lambda: len(watched.instances("square", "success")) >= 3, 60, "the first squares")
    watched.crash("scheduler")
    days = ("-s", "2026-01-01", "-e", "2026-01-05")
    daemons.cli("dags", "backfill", "daily", *days, "--max-active-runs", "2", "--no-wait")

    wait_until(lambda: watched.instances("held", "running"), 60, "a task to run")
    place = str(watched.instances("square", "success")[0])
    daemons.cli("tasks", "clear", "main", "--run-id", "r", "-t", "^held$", "-y")
    daemons.cli(
        "tasks", "clear", "main", "--run-id", "r", "-t", "square", "--map-index", place, "-y"
    )
    watched.crash("worker")
    wait_until(lambda: watched.instances("each.until", "deferred") == [1, 3], 60, "the waits")
    watched.crash("triggerer")
    (roost_home / "flag").touch()
    wait_until(watched.ended, 90, "everything to end")

    watched.check()
    runs = fetch(database_url, _RUNS)
    assert {run["state"] for run in runs} == {"success"}
    assert sorted(run["dag_id"] for run in runs if run["dag_id"] != "listener") == sorted(
        [*["daily"] * 5, "main", "main.section", "other"]
    )
    assert watched.instances("square", "success") == list(range(30))
    assert watched.instances("right", "skipped") == [-1]
    assert watched.instances("bad", "failed") == [-1]
    assert {row["used"] for row in fetch(database_url, "SELECT used FROM pool")} == {0}
    assert not fetch(database_url, "SELECT 1 FROM trigger")
    check_notes(roost_home)
    for daemon in watched.running.values():
        assert daemon.stop() == 0
    assert with_environment(f"ROOST_HOME={roost_home}") == set()
    watched.engine.dispose()
