"""``tasks render``: templates as a run would see them, without running anything (S64)."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.dag.parse import parse_dag_file
from roost.models.engine import open_engine, transact
from roost.scheduler.parsing.store import store_file
from tests.cli.seed import Seed

FILE = """
from roost.dag import DAG, task
from roost.operators import BashOperator, PythonOperator

def never(*args):
    raise SystemExit("it ran")

with DAG("d", schedule="@daily", params={{"n": 1}}):
    bash = BashOperator(
        task_id="bash",
        bash_command="{note} {{{{ ds }}}} {{{{ params.n }}}} {{{{ var.value.get('v', '-') }}}}",
        env={{"A": "{{{{ run_id }}}}"}},
    )
    PythonOperator(task_id="python", python_callable=never, op_args=["{{{{ ds_nodash }}}}", 7])
    BashOperator(task_id="bad", bash_command="{{{{ nothing }}}}")
    BashOperator(task_id="secret", bash_command="{{{{ conn.db.password }}}}")
    many = PythonOperator.partial(task_id="many", python_callable=never)
    many.expand(op_args=[["{{{{ ds }}}}"], ["b"]])
"""


def parse(seed: Seed, note: str) -> None:
    """Store the file as a scheduler would."""
    folder = seed.home / "dags"
    folder.mkdir(exist_ok=True)
    (folder / "d.py").write_text(FILE.format(note=note))
    parsed = parse_dag_file(str(folder / "d.py"), str(folder))
    assert parsed.error is None
    engine = open_engine(seed.url)
    try:
        transact(
            engine,
            lambda tx: store_file(tx, "d.py", parsed, stamp="", took_us=1, paused=False),
        )
    finally:
        engine.dispose()


@pytest.fixture
def parsed(seed: Seed) -> Seed:
    parse(seed, "one")
    return seed


def fields(seed: Seed, *args: str) -> dict[str, str]:
    rows = seed.json("tasks", "render", "d", *args)
    return {row["field"]: row["value"] for row in rows}


def test_s64_the_fields_of_a_run_in_its_own_version(parsed: Seed, tmp_path: Path) -> None:
    """S64, H20: the run's dates, conf and version, even after the file has changed or gone."""
    key = parsed.run("d", "r")
    parsed.sql("UPDATE dag_run SET conf = '{\"n\": 5}' WHERE id = :key", key=key)
    parse(parsed, "two")
    (parsed.home / "dags" / "d.py").unlink()
    shown = fields(parsed, "r", "bash")
    assert shown["bash_command"] == "one 2026-01-05 5 -"
    assert shown["env"] == "{'A': 'r'}"
    assert fields(parsed, "2026-01-31", "bash")["bash_command"] == "two 2026-01-31 1 -"
    assert fields(parsed, "r", "python")["op_args"] == "['20260105', 7]"


def test_s64_one_instance_of_a_mapped_task(parsed: Seed) -> None:
    """H17: by ``--map-index``."""
    parsed.run("d", "r")
    shown = fields(parsed, "r", "many", "--map-index", "1")
    assert shown["op_args"] == "['b']"


def test_secrets_are_hidden(parsed: Seed) -> None:
    """As in logs."""
    parsed.run("d", "r")
    parsed.env["ROOST_CONN_DB"] = "postgresql://me:tobehidden@host/db"
    assert "tobehidden" not in fields(parsed, "r", "secret")["bash_command"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("d", "r", "bad"), "task 'bad': template of 'bash_command' failed: UndefinedError: "),
        (("d", "r", "bosh"), "there is no task of d 'bosh'; did you mean 'bash'?"),
        (("d", "nope", "bash"), "there is no run of d 'nope'; `roost dags list-runs d` shows"),
        (("x", "r", "bash"), "there is no DAG 'x'"),
    ],
)
def test_what_is_wrong_is_one_line(parsed: Seed, args: tuple[str, ...], message: str) -> None:
    parsed.run("d", "r")
    said = parsed.cli("tasks", "render", *args)
    assert said.exit_code == 2
    assert said.stderr.startswith(f"roost: {message}")
    assert said.stderr.count("\n") == 1
