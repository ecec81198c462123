"""Bad input: one clear line each where its author looks, and nothing else harmed (S8, S11, S12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

HEAD = """
from datetime import timedelta
from roost.dag import DAG, Param
from roost.operators import BaseOperator, BashOperator, EmptyOperator, PythonOperator
from roost.triggers import TimeDeltaTrigger
"""


def dag(arguments: str, *lines: str) -> str:
    """A file with one DAG, whose ``with`` stands in line 7."""
    return "\n    ".join([f"{HEAD}with DAG({arguments}):", *lines]) + "\n"


ONE = "EmptyOperator(task_id='a')"
# By file: its text, and the line of its import error.
FILES: dict[str, tuple[str | bytes, str]] = {
    "cycle": (
        dag("'cycle'", f"a = {ONE}", "b = EmptyOperator(task_id='b')", "a >> b >> a"),
        "DAG 'cycle' has a cycle: a -> b -> a",
    ),
    "bad_cron": (
        dag("'cron', schedule='61 * * * *'", ONE),
        "DAG 'cron': '61 * * * *' is not a cron expression; write five fields",
    ),
    "unknown_rule": (
        dag("'rule'", "EmptyOperator(task_id='a', trigger_rule='all_happy')"),
        "unknown_rule.py:7: task 'a': unknown trigger_rule 'all_happy'; one of all_success, ",
    ),
    "duplicate": (
        dag("'twice'", ONE, ONE),
        "duplicate.py:8: DAG 'twice' already has a task or group 'a': give each its own id",
    ),
    "no_callable": (
        dag("'call'", "PythonOperator(task_id='a', python_callable=None)"),
        "no_callable.py:7: task 'a': python_callable must be a function, not None",
    ),
    "unstorable": (dag("'store', params={'x': object()}", ONE), "DAG 'store': params"),
    "bad_param": (
        dag("'param', params={'n': Param('x', type='integer')}", ONE),
        "DAG 'param': param 'n' = 'x': n must be integer (rule type: 'integer')",
    ),
    "not_utf8": (b"# roost dag\n# \xff\xfe\n", "not_utf8.py:2: not UTF-8 text"),
    "nul": (b"# roost dag\nx = 1\0\n", "nul.py: holds a NUL character"),
    "endless": ("# roost dag\nwhile True:\n    pass\n", "the import took longer than 4 s"),
}

TASKS = f"""
{HEAD}

class Waits(BaseOperator):
    def execute(self, context):
        soon = TimeDeltaTrigger(timedelta(0))
        self.defer(trigger=soon, method_name="x", kwargs={{"o": object()}})

    def x(self, context, event):
        pass


with DAG("tasks", schedule=None):
    BashOperator(task_id="template", bash_command="echo {{{{ nothing }}}}")
    PythonOperator(task_id="gigabyte", python_callable=lambda: "x" * (1 << 30))
    PythonOperator(task_id="gigabyte_push",
                   python_callable=lambda ti: ti.xcom_push("k", "x" * (1 << 30)))
    Waits(task_id="kwarg")
    EmptyOperator(task_id="fine")
with DAG("nowhere", schedule=None):
    BashOperator(task_id="pooled", bash_command="true", pool="no_such_pool")
with DAG("healthy", schedule=None, params={{"n": Param(1, type="integer")}}):
    BashOperator(task_id="a", bash_command="true") >> BashOperator(task_id="b", bash_command="true")
"""

# By task: the line of its log.
LOGS = {
    "template": "task 'template': template of 'bash_command' failed: UndefinedError: 'nothing' is "
    "undefined (line 1 of 'echo {{ nothing }}')",
    "gigabyte": "XCom 'return_value'",
    "gigabyte_push": "XCom 'k'",
    "kwarg": "kwargs.o: <class 'object'> is not JSON",
}


def peak_mb(pid: int) -> int:
    """Most memory that a process has had, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError(f"{pid} has no memory")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_each_is_one_clear_line_and_harms_nothing(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """S11, S12, S37, S53, S64, S77: real daemons, everything wrong at once, and a healthy DAG."""
    folder = roost_home / "dags"
    for name, (text, _) in FILES.items():
        (folder / f"{name}.py").write_bytes(text.encode() if isinstance(text, str) else text)
    (folder / "tasks.py").write_text(TASKS)
    daemons.env["ROOST__SCHEDULER__PARSE_TIMEOUT"] = "4"
    _scheduler, _triggerer, worker = daemons.start_all()
    wait_until(lambda: len(daemons.json("dags", "list-import-errors")) == len(FILES), 90, "errors")

    errors = {
        Path(row["filepath"]).stem: row["error"]
        for row in daemons.json("dags", "list-import-errors")
    }
    for name, (_, message) in FILES.items():
        assert message in errors[name], name
        assert "\n" not in errors[name], name

    wait_until(lambda: len(daemons.json("dags", "list")) == 3, what="the good DAGs")
    for dag_id in ("tasks", "nowhere", "healthy"):
        daemons.cli("dags", "trigger", dag_id, "--run-id", "r")
    healthy = daemons.cli("dags", "trigger", "healthy", "--run-id", "w", "--wait")
    assert healthy.returncode == 0

    def state(dag_id: str) -> str:
        return daemons.cli("dags", "state", dag_id, "r").stdout.strip()

    wait_until(lambda: state("tasks") == "failed", 90, "the bad tasks to fail")
    assert state("healthy") == "success"
    rows = daemons.json("tasks", "states-for-dag-run", "tasks", "r")
    states = {row["task_id"]: row["state"] for row in rows}
    assert states == {**dict.fromkeys(LOGS, "failed"), "fine": "success"}
    for task_id, message in LOGS.items():
        log = daemons.cli("tasks", "logs", "tasks", "r", task_id).stdout
        said = [line for line in log.splitlines() if message in line]
        assert len(said) == 1, log
    # The limit holds before anything is sent: the worker never had what the task had.
    assert peak_mb(worker.pid) < 400
    assert fetch(database_url, "SELECT count(*) AS n FROM xcom WHERE length(value) > 1000000") == [
        {"n": 0}
    ]

    why = daemons.cli("tasks", "why", "nowhere", "r", "pooled").stdout
    assert "no_such_pool" in why
    for args, message in (
        (("--conf", '{"n": "x"}'), "roost: param 'n' = 'x': n must be integer"),
        (("--conf", "{"), "roost: "),
    ):
        refused = daemons.cli("dags", "trigger", "healthy", *args, check=False)
        assert refused.returncode == 2
        assert refused.stderr.startswith(message)
        assert refused.stderr.count("\n") == 1
