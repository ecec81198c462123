"""``dags details``: documentation, params and tasks, for eyes and for programs (S69)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from roost.dag import DAG, Param
from roost.dag.serialize import serialize_dag
from roost.operators import BashOperator, EmptyOperator
from tests.cli.seed import Seed


def documented(folder: Path) -> DAG:
    """A DAG with every kind of documentation."""
    (folder / "README.md").write_text("# Sales\n\nAll of them.\n")
    with DAG(
        "sales",
        description="what is sold",
        schedule="@daily",
        default_args={"retries": 2, "retry_delay": timedelta(minutes=1), "owner": "ann"},
        params={"region": Param("eu", "where", enum=["eu", "us"]), "limit": 3},
        tags=["money"],
        doc_md="README.md",
    ) as made:
        load = BashOperator(
            task_id="load", bash_command="x", pool="wide", queue="big", doc="plain\nwords",
            doc_md="*md*", doc_json='{"a": 1}', doc_yaml="a: 1", doc_rst="rst",
            params={"limit": Param(4, maximum=9)},
        )  # fmt: skip
        load >> EmptyOperator(task_id="end", trigger_rule="all_done", owner="bob")
    made.fileloc = str(folder / "etl.py")
    return made


def facts(seed: Seed) -> dict[str, Any]:
    rows = seed.json("dags", "details", "sales")
    return {row["property_name"]: row["property_value"] for row in rows}


def test_s69_everything_is_kept_and_shown(seed: Seed, tmp_path: Path) -> None:
    """S69: doc, doc_md, doc_json, doc_yaml, doc_rst of tasks, doc_md of the DAG from its file."""
    seed.dags(serialize_dag(documented(tmp_path)))
    found = facts(seed)
    assert found["doc_md"] == "# Sales\n\nAll of them.\n"
    assert (found["owners"], found["tags"]) == ("ann, bob", "money")
    assert (found["schedule"], found["timetable"], found["catchup"]) == ("@daily", "cron", False)
    assert found["next_run"] is not None
    assert found["default_args"] == {"retries": 2, "retry_delay": "0:01:00", "owner": "ann"}
    assert found["params"] == {
        "region": {
            "default": "eu", "description": "where", "schema": {"enum": ["eu", "us"]},
        },
        "limit": {"default": 3},
    }  # fmt: skip
    assert (found["versions"], found["tasks"]) == (1, 2)
    load, end = found["task_details"]
    docs = {name: text for name, text in load.items() if name.split("_")[0] == "doc"}
    assert docs == {
        "doc": "plain\nwords",
        "doc_md": "*md*",
        "doc_json": '{"a": 1}',
        "doc_yaml": "a: 1",
        "doc_rst": "rst",
    }
    assert (load["operator"], load["pool"], load["queue"]) == ("BashOperator", "wide", "big")
    assert (load["retries"], load["params"], load["downstream"]) == (2, {"limit": 4}, ["end"])
    assert (end["trigger_rule"], end["owner"]) == ("all_done", "bob")


def test_s69_as_a_table(seed: Seed, tmp_path: Path) -> None:
    """S69: a line for each param and task, texts with their lines."""
    seed.dags(serialize_dag(documented(tmp_path)))
    shown = seed.cli("dags", "details", "sales").stdout
    for line in (
        "doc_md ",
        "| All of them.",
        "param region ",
        '"enum": ["eu", "us"]',
        "| BashOperator, pool wide, queue big, all_success",
        "task load doc_yaml",
        "| words",
    ):
        assert line in shown


def test_the_text_of_a_doc_that_names_no_file_stays(seed: Seed, tmp_path: Path) -> None:
    """S69: as Airflow does."""
    made = DAG("sales", doc_md="see absent.md")
    EmptyOperator(task_id="t", dag=made)
    seed.dags(serialize_dag(made))
    assert facts(seed)["doc_md"] == "see absent.md"


def test_a_new_version_is_counted(seed: Seed, tmp_path: Path) -> None:
    """H20."""
    for note in ("one", "two"):
        made = DAG("sales", description=note)
        EmptyOperator(task_id="t", dag=made)
        seed.dags(serialize_dag(made))
    assert facts(seed)["versions"] == 2


def test_trigger_refuses_a_conf_that_breaks_a_schema(seed: Seed, tmp_path: Path) -> None:
    """Params: one line with the name, the value and the rule; nothing is stored."""
    seed.dags(serialize_dag(documented(tmp_path)))
    for conf, message in (
        ('{"region": "moon"}', "param 'region' = 'moon': region must be one of ['eu', 'us'] "),
        ('{"limit": 10}', "param 'limit' = 10: limit must be smaller than or equal to 9 "),
    ):
        said = seed.cli("dags", "trigger", "sales", "--conf", conf)
        assert said.exit_code == 2
        assert said.stderr.startswith(f"roost: {message}")
        assert said.stderr.count("\n") == 1
    assert seed.scalar("SELECT count(*) FROM dag_run") == 0
    fine = seed.cli("dags", "trigger", "sales", "--conf", '{"region": "us", "other": 1}')
    assert fine.exit_code == 0


def test_trigger_asks_for_a_value_that_has_no_default(seed: Seed) -> None:
    """Params: what is required at trigger."""
    made = DAG("sales", params={"day": Param(type="string", format="date")})
    EmptyOperator(task_id="t", dag=made)
    seed.dags(serialize_dag(made))
    said = seed.cli("dags", "trigger", "sales")
    assert said.exit_code == 2
    assert said.stderr == (
        "roost: param 'day' has no default; give a value in the run's conf, e.g. "
        "--conf '{\"day\": …}'\n"
    )
    assert seed.cli("dags", "trigger", "sales", "--conf", '{"day": "2026-01-31"}').exit_code == 0
