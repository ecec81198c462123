"""The cluster policy: what it changes, refuses and skips, and what a broken one does (S108)."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from roost.dag.loader import load_dag_file, read_source
from roost.dag.model import ParsedFile, SerializedTask
from roost.dag.parse import parse_dag_file
from roost.scheduler.parsing.folder import file_clock
from tests.scheduler.watching import Folder
from tests.support.waiting import wait_until

FILE = """
from datetime import timedelta
from roost.dag import DAG
from roost.operators import BashOperator, EmptyOperator
from roost.sensors import BaseSensorOperator


class HivePartitionSensor(BaseSensorOperator):
    def poke(self, context):
        return True


with DAG("d", schedule=None, tags=["t"]):
    HivePartitionSensor(task_id="sensor", timeout=timedelta(days=7))
    BashOperator(task_id="bash", bash_command="x")
with DAG("other", schedule=None):
    EmptyOperator(task_id="empty")
"""

# The seed's own example; only some tasks have a timeout.
SEED_POLICY = """
from datetime import timedelta

def policy(task):
    if task.__class__.__name__ == "HivePartitionSensor":
        task.queue = "sensor_queue"
    if getattr(task, "timeout", None) and task.timeout > timedelta(hours=48):
        task.timeout = timedelta(hours=48)
"""


class Site:
    """A DAG file and a policy file."""

    def __init__(self, root: Path) -> None:
        self.dags = root / "dags"
        self.dags.mkdir()
        (self.dags / "d.py").write_text(FILE)
        self.policy = root / "config" / "roost_local_settings.py"
        self.policy.parent.mkdir()

    def parse(self, policy: str | None = None) -> ParsedFile:
        if policy is not None:
            self.policy.write_text(policy)
        return parse_dag_file(str(self.dags / "d.py"), str(self.dags))

    def task(self, task_id: str, policy: str) -> SerializedTask:
        parsed = self.parse(policy)
        assert parsed.error is None
        (found,) = [t for dag in parsed.dags for t in dag.tasks if t.task_id == task_id]
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setenv("ROOST__CORE__LOCAL_SETTINGS", str(made.policy))
    return made


def test_s108_the_example_of_the_seed(site: Site) -> None:
    """S108: a queue by class and a timeout of 48 h at most; what is stored is what runs."""
    assert site.task("sensor", SEED_POLICY).queue == "sensor_queue"
    assert site.task("bash", SEED_POLICY).queue == "default"
    path = str(site.dags / "d.py")
    loaded = load_dag_file(path, read_source(path), str(site.dags))
    sensor: Any = loaded.dags["d"].get_task("sensor")
    assert sensor.timeout == timedelta(hours=48)
    assert sensor.queue == "sensor_queue"


def test_s108_each_hook(site: Site) -> None:
    """S108: on the DAG, then on each task, then for its instances."""
    policy = (
        "def dag_policy(dag):\n    dag.tags.append('policed')\n    dag.max_active_runs = 3\n"
        "def task_policy(task):\n    task.retries = 5\n    task.priority_weight = 2\n"
        "def task_instance_mutation_hook(ti):\n"
        "    assert (ti.try_number, ti.task.retries) == (1, 5)\n"
        "    ti.pool = f'pool_of_{ti.operator}'\n    ti.priority_weight += 1\n"
    )
    parsed = site.parse(policy)
    assert parsed.error is None
    (dag,) = [dag for dag in parsed.dags if dag.dag_id == "d"]
    assert (dag.tags, dag.max_active_runs) == (["t", "policed"], 3)
    bash = site.task("bash", policy)
    assert (bash.retries, bash.pool, bash.priority_weight) == (5, "pool_of_BashOperator", 3)


def test_s108_a_violation_is_the_files_import_error(site: Site) -> None:
    """S108: one line that names the DAG and the reason."""
    parsed = site.parse(
        "from roost.exceptions import ClusterPolicyViolation\n"
        "def dag_policy(dag):\n"
        "    if dag.dag_id == 'd':\n        raise ClusterPolicyViolation('DAGs need\\nan owner')\n"
    )
    assert parsed.error == "DAG 'd' is refused by the cluster policy: DAGs need an owner"


def test_s108_a_dag_may_be_skipped(site: Site) -> None:
    """S108: without an error; the others of its file are loaded."""
    parsed = site.parse(
        "from roost.exceptions import ClusterPolicySkipDag\n"
        "def task_policy(task):\n"
        "    if task.task_id == 'empty':\n        raise ClusterPolicySkipDag('not here')\n"
    )
    assert (parsed.error, [dag.dag_id for dag in parsed.dags]) == (None, ["d"])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("def policy(task:\n", ":1: the cluster policy cannot be loaded: SyntaxError: "),
        ("\nimport roost_none\n", ":2: the cluster policy cannot be loaded: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", ":1: the cluster policy cannot be loaded: SystemExit: 3"),
        ("def policy(t):\n    t.nothing.x\n", ":2: cluster policy on task 'sensor' of DAG 'd': "),
        ("def policy(t):\n    t.queue = ''\n", "task 'sensor' of DAG 'd': queue must be a name"),
        ("def policy(t):\n    t.pool_slots = 0\n", "pool_slots must be 1 or more"),
        (
            "def task_instance_mutation_hook(ti):\n    ti.state = 'success'\n",
            ":2: cluster policy on task 'sensor' of DAG 'd': AttributeError: 'state' cannot be set",
        ),
    ],
)  # fmt: skip
def test_s108_a_broken_policy_is_one_clear_line(site: Site, policy: str, message: str) -> None:
    """S108: for every file, with the policy's own place."""
    error = site.parse(policy).error or ""
    assert message in error
    assert "\n" not in error


def test_s108_a_policy_is_part_of_the_version(site: Site) -> None:
    """S108: another policy, another version; without one, the version is as ever."""
    without = site.parse()
    first, again, second = site.parse("x = 1\n"), site.parse(), site.parse("x = 2\n")
    assert first.code_hash == again.code_hash
    assert len({without.code_hash, first.code_hash, second.code_hash}) == 3


def test_s108_a_change_parses_every_file_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S108: when it comes, is edited and goes; broken, all keep their last good version."""
    policy = tmp_path / "policy.py"
    monkeypatch.setenv("ROOST__CORE__LOCAL_SETTINGS", str(policy))
    (tmp_path / "dags").mkdir()
    folder = Folder(database_url, tmp_path / "dags")

    def write(text: str) -> None:
        policy.write_text(text)
        wait_until(lambda: file_clock() > os.stat(policy).st_ctime_ns, what="the next tick")

    try:
        folder.good("a.py")
        folder.good("b.py")
        assert folder.look() == ["a.py", "b.py"]
        assert folder.look() == []
        write("def dag_policy(dag):\n    dag.description = 'policed'\n")
        assert folder.look() == ["a.py", "b.py"]
        assert folder.note("b") == "policed"
        assert folder.look() == []
        write("def dag_policy(dag:\n")
        assert folder.look() == ["a.py", "b.py"]
        assert set(folder.errors()) == {"a.py", "b.py"}
        assert (set(folder.dags()), folder.note("a")) == ({"a", "b"}, "policed")
        policy.unlink()
        folder.look()
        assert (folder.errors(), folder.note("a")) == ({}, "")
    finally:
        folder.close()
