"""H17, H18: mapped tasks with their real values, by real daemons and by ``dags test`` alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from roost.cli.main import cli
from tests.e2e.test_promises import dag_is_known
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

_SOURCE = """\
from pathlib import Path

from roost.dag import DAG, task, task_group

OUT = Path(__file__).parent.parent / "out"


@task
def numbers():
    return [1, 2, 3]


@task
def pairs():
    return {"a": 10, "b": 20}


@task
def multiply(x, y):
    return x * y


@task
def total(values):
    (OUT / "total").write_text(str(list(values)))


@task
def show(pair):
    return f"{pair[0]}{pair[1]}"


@task.branch
def choose(n):
    return "each.even" if n % 2 == 0 else "each.odd"


@task
def even(n):
    return n


@task
def odd(n):
    return n


@task_group
def each(n):
    choose(n) >> [even(n), odd(n)]


@task(trigger_rule="all_done")
def collect(ti, shown):
    left = ti.xcom_pull(task_ids="each.odd", map_indexes=0)
    (OUT / "collect").write_text(f"{list(shown)} {left}")


@task
def none():
    return []


with DAG("long", schedule=None):
    found = numbers()
    total(multiply.partial(y=2).expand(x=found))
    shown = show.expand(pair=pairs())
    each.expand(n=found) >> collect(shown=shown)
    show.override(task_id="nothing").expand(pair=none())
"""
STATES = {
    "numbers": "success", "pairs": "success", "none": "success", "nothing": "skipped",
    **{f"multiply[{k}]": "success" for k in range(3)}, "total": "success",
    "show[0]": "success", "show[1]": "success", "collect": "success",
    **{f"each.choose[{k}]": "success" for k in range(3)},
    "each.even[0]": "skipped", "each.even[1]": "success", "each.even[2]": "skipped",
    "each.odd[0]": "success", "each.odd[1]": "skipped", "each.odd[2]": "success",
}  # fmt: skip


def check_out(home: Path) -> None:
    assert (home / "out" / "total").read_text() == "[2, 4, 6]"
    assert (home / "out" / "collect").read_text() == "['a10', 'b20'] 1"


def write(home: Path) -> None:
    (home / "out").mkdir()
    (home / "dags").mkdir(exist_ok=True)
    (home / "dags" / "d.py").write_text(_SOURCE)


def test_h17_in_one_process(tmp_path: Path) -> None:
    write(tmp_path)
    result = CliRunner().invoke(cli, ["dags", "test", "long"], env={"ROOST_HOME": str(tmp_path)})
    assert result.exit_code == 0, result.stdout
    lines = [line.split() for line in result.stdout.splitlines()[:-1] if line]
    assert {line[0]: line[1] for line in lines} == STATES
    check_out(tmp_path)


@pytest.mark.timeout(180)
def test_h17_by_daemons(daemons: Daemons, database_url: str, roost_home: Path) -> None:
    write(roost_home)
    daemons.start_all("scheduler", "worker")
    wait_until(lambda: dag_is_known(database_url), what="the DAG")
    daemons.cli("dags", "trigger", "long", "--run-id", "r")

    def ended() -> bool:
        (row,) = fetch(database_url, "SELECT state FROM dag_run")
        return row["state"] in ("success", "failed")

    wait_until(ended, what="the run to end", timeout=90)
    told = daemons.json("tasks", "states-for-dag-run", "long", "r", "-o", "json")
    names = {
        row["task_id"] if row["map_index"] < 0 else f"{row['task_id']}[{row['map_index']}]": row
        for row in told
    }
    assert {name: row["state"] for name, row in names.items()} == STATES
    check_out(roost_home)
    state = daemons.cli("tasks", "state", "long", "r", "multiply", "--map-index", "2").stdout
    assert state.strip() == "success"
