"""``dags test`` and ``tasks test``: a DAG file without daemons or a database."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from roost.cli.main import cli

DAG = """
import asyncio
from datetime import datetime, timedelta
from roost.dag import DAG
from roost.exceptions import FailTask
from roost.operators import BaseOperator, EmptyOperator, PythonOperator
from roost.triggers import BaseTrigger, TriggerEvent, TimeDeltaTrigger

class Poll(BaseTrigger):
    def __init__(self, rows): self.rows = rows
    def serialize(self): return ("mine.Poll", {"rows": self.rows})
    async def run(self):
        await asyncio.sleep(0)
        if self.rows is None: raise ValueError("no rows")
        if self.rows == 0: await asyncio.sleep(100)
        yield TriggerEvent({"rows": self.rows})

class Job(BaseOperator):
    def __init__(self, *, rows, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows
    def execute(self, context):
        self.defer(trigger=Poll(self.rows), method_name="execute_complete",
                   timeout=timedelta(seconds=0.2 if self.rows == 0 else 60))
    def execute_complete(self, context, event):
        return event["rows"]

class Nap(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(milliseconds=5)), method_name="back")
    def back(self, context, event):
        return event.isoformat()

tries = []
def flaky():
    tries.append(1)
    if len(tries) < 3: raise ValueError("not yet")
def look(ti, ds, params, dag_run):
    print("rows", ti.xcom_pull(task_ids="load"), ds, dag_run.conf)
def refuse():
    raise FailTask("never")

start = datetime(2026, 1, 1)
with DAG("good", schedule="@daily", start_date=start) as good:
    load, nap = Job(task_id="load", rows=42), Nap(task_id="nap")
    again = PythonOperator(task_id="again", python_callable=flaky, retries=2)
    EmptyOperator(task_id="begin") >> [load, nap, again] >> PythonOperator(
        task_id="look", python_callable=look)
with DAG("bad", schedule=None, start_date=start) as bad:
    no = PythonOperator(task_id="no", python_callable=refuse, retries=5)
    none = Job(task_id="none", rows=None)
    never = Job(task_id="never", rows=0)
    [no, none, never] >> EmptyOperator(task_id="after")
    no >> EmptyOperator(task_id="cleanup", trigger_rule="all_done")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "mine.py").write_text(DAG)
    (tmp_path / "dags" / "broken.py").write_text("import roost.dag\nraise RuntimeError('oops')")
    return tmp_path


def run(home: Path, *args: str) -> Result:
    return CliRunner().invoke(cli, args, env={"ROOST_HOME": str(home)})


def test_a_whole_dag(home: Path) -> None:
    result = run(home, "dags", "test", "good", "2026-02-03", "--conf", '{"a": 1}')
    assert result.exit_code == 0, result.stdout
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "begin success"
    assert "rows 42 2026-02-03 {'a': 1}" in lines
    assert "load deferred mine.Poll" in lines
    assert "load running execute_complete" in lines
    assert "nap running back" in lines
    assert lines.count("again up_for_retry after try 1 of 3") == 1
    assert lines.index("look success") == len(lines) - 2
    assert "success after" in lines[-1]
    assert lines[-1].endswith(": 5 success")
    assert not (home / "roost.db").exists()


def test_failures_decide_as_the_scheduler_does(home: Path) -> None:
    result = run(home, "dags", "test", "bad")
    assert result.exit_code == 1
    states = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines()[:-1] if line}
    assert states == {
        "no": "failed",
        "none": "failed",
        "never": "failed",
        "after": "upstream_failed",
        "cleanup": "success",
    }
    text = " ".join(result.stdout.split())
    assert "up_for_retry" not in text  # FailTask has no second try
    assert "no rows" in text
    assert "DeferralTimeout" in text
    assert "bad failed after" in text


def test_one_task(home: Path) -> None:
    result = run(home, "tasks", "test", "good", "load")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "returned 42"
    assert run(home, "tasks", "test", "bad", "no").exit_code == 1
    assert "did you mean 'load'?" in run(home, "tasks", "test", "good", "lod").stderr


def test_a_dag_that_is_not_there(home: Path) -> None:
    assert "did you mean 'good'?" in run(home, "dags", "test", "god").stderr
    away = run(home, "dags", "test", "zzz")
    assert away.exit_code == 2
    assert "broken.py (RuntimeError('oops'))" in away.stderr


def test_a_file_outside_the_folder(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(DAG.replace('"good"', '"elsewhere"'))
    assert run(home, "tasks", "test", "elsewhere", "load", "-f", str(other)).exit_code == 0
    broken = run(home, "dags", "test", "x", "-f", str(home / "dags" / "broken.py"))
    assert "cannot be imported: RuntimeError('oops')" in broken.stderr


def test_a_file_that_exits_does_not_end_the_search(home: Path) -> None:
    """It may hold another DAG's id by chance, or be looked at before the right one."""
    (home / "dags" / "exits.py").write_text("import roost.dag, sys  # good\nsys.exit(3)")
    assert run(home, "dags", "test", "good").exit_code == 0
    away = run(home, "dags", "test", "zzz")
    assert away.exit_code == 2
    assert "exits.py (SystemExit(3))" in away.stderr


def test_a_trigger_asks_as_in_the_daemons(home: Path) -> None:
    """A trigger awaits XComs and Variables of the run; a call that blocks the loop is refused."""
    (home / "dags" / "asks.py").write_text(
        """
from roost.dag import DAG, Variable, task
from roost.operators import BaseOperator
from roost.triggers import BaseTrigger, TriggerEvent

class Asks(BaseTrigger):
    def __init__(self, blocks): self.blocks = blocks
    def serialize(self): return ("Asks", {"blocks": self.blocks})
    async def run(self):
        if self.blocks: Variable.get("place")
        yield TriggerEvent([await self.get_variable("place"), await self.xcom_pull("first")])

class Waits(BaseOperator):
    def __init__(self, blocks=False, **kwargs):
        super().__init__(**kwargs)
        self.blocks = blocks
    def execute(self, context):
        Variable.set("place", "Lund")
        self.defer(trigger=Asks(self.blocks), method_name="back")
    def back(self, context, event):
        print("event", event)

with DAG("asks"):
    @task
    def first():
        return 42
    first() >> [Waits(task_id="good"), Waits(task_id="bad", blocks=True)]
"""
    )
    result = run(home, "dags", "test", "asks")
    assert "event ['Lund', 42]" in result.stdout
    assert "would block every trigger" in result.stdout


def test_the_readme_shows_a_task_that_defers(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "README.md").read_text()
    (text,) = re.findall(r"<<'EOF'\n(.*?)^EOF", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "hello.py").write_text(text.replace("seconds=3", "seconds=0.01"))
    result = run(tmp_path, "dags", "test", "hello", "2026-01-31")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:3] == [
        "nap running", "nap deferred roost.triggers.DateTimeTrigger",
        "nap running execute_complete",
    ]  # fmt: skip
    assert "good morning on 2026-01-31" in lines
    assert result.exit_code == 0


MAPPED = """
from roost.dag import DAG, task, task_group
from roost.exceptions import SkipTask

with DAG("mapped"):
    @task
    def files():
        return ["a", "bb", "skipped"]
    @task(map_index_template="{{ task.op_kwargs.name }}")
    def size(name, factor):
        if name == "skipped":
            raise SkipTask
        return len(name) * factor
    @task(trigger_rule="none_failed")
    def total(sizes, ti):
        print("sizes", sizes, ti.xcom_pull(task_ids="size", map_indexes=1))
    names = files()
    total(size.partial(factor=3).expand(name=names))

    @task_group
    def load(name):
        @task
        def fetch(name):
            return name * 2
        @task.short_circuit
        def store(text):
            return text != "aa"
        @task
        def last():
            pass
        store(fetch(name)) >> last()
    load.expand(name=names)

    @task
    def none():
        return []
    size.override(task_id="nothing").partial(factor=1).expand(name=none())
    @task
    def text():
        return "abc"
    size.override(task_id="wrong").partial(factor=1).expand(name=text())
"""


def test_h17_mapped_tasks_and_groups_run_in_process(tmp_path: Path) -> None:
    file = tmp_path / "mapped.py"
    file.write_text(MAPPED)
    result = CliRunner().invoke(cli, ["dags", "test", "mapped", "-f", str(file)])
    lines = [re.sub(" +", " ", line) for line in result.output.splitlines()]
    assert result.exit_code == 1, result.output
    for line in (
        "size[1] success bb", "size[2] skipped skipped", "sizes [3, 6] 6",
        "load.store[0] success", "load.last[0] skipped by load.store[0]",
        "load.last[1] success", "nothing skipped mapped over nothing: its length is 0",
    ):  # fmt: skip
        assert line in lines, result.output
    assert "'text', which is not a list, tuple or dict: return one" in result.output


def test_h17_one_instance_of_a_mapped_task_is_tried(tmp_path: Path) -> None:
    file = tmp_path / "mapped.py"
    file.write_text(MAPPED.replace("expand(name=names)", "expand(name=['x', 'yy'])", 1))
    for options, value in (([], "returned 3"), (["--map-index", "1"], "returned 6")):
        result = CliRunner().invoke(
            cli, ["tasks", "test", "mapped", "size", "-f", str(file), *options]
        )
        assert value in result.output
