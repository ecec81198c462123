"""``dags delete``: what goes, what stays, what stands in the way."""

from __future__ import annotations

from roost.models.tables.base import metadata
from tests.cli.seed import Seed, chain

_OTHERS = {"dag_version", "dag_source", "dag_file", "pool", "id_block", "alembic_version"}


def gone(seed: Seed) -> None:
    """A DAG with a finished run, whose file does not define it any more."""
    seed.dags(chain("a", "x", "y"))
    key = seed.run("a", "r", state="success")
    ti_id = seed.instance(key, "x", state="deferred", trigger_id=1)
    seed.trigger(ti_id, key)
    seed.dispatch(ti_id, key)
    seed.sql("INSERT INTO xcom (ti_id, key, value, created_at) VALUES (:t, 'k', '1', 0)", t=ti_id)
    seed.sql(
        "INSERT INTO event_log (at, actor, event, dag_run_id, ti_id) VALUES "
        "(1, 'cli', 'clear', :r, :t), (1, 'cli', 'clear', :r, NULL)",
        r=key,
        t=ti_id,
    )
    seed.dags()


def rows(seed: Seed) -> dict[str, int]:
    """How many rows each table has, but for those that belong to no DAG."""
    names = {table.name for table in metadata.sorted_tables} - _OTHERS
    counts = {name: seed.scalar(f"SELECT count(*) FROM {name}") for name in sorted(names)}  # noqa: S608
    return {name: count for name, count in counts.items() if count}


def test_nothing_is_left_of_it_and_others_stay(seed: Seed) -> None:
    seed.dags(chain("b", "x"), fileloc="b.py")
    seed.run("b", "r", state="success")
    before = rows(seed)
    gone(seed)
    done = seed.cli("dags", "delete", "a", "-y")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "deleted DAG a with 1 runs and 2 task instances\n"
    assert rows(seed) == before


def test_a_dry_run_and_a_missing_y_delete_nothing(seed: Seed) -> None:
    gone(seed)
    done = seed.cli("dags", "delete", "a", "--dry-run")
    assert done.stdout == "would delete DAG a with 1 runs and 2 task instances\n"
    refused = seed.cli("dags", "delete", "a")
    assert refused.exit_code == 2
    assert "there is no terminal to ask at; give -y" in refused.stderr
    assert seed.scalar("SELECT count(*) FROM dag_run") == 1


def test_an_active_run_stands_in_the_way(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    seed.run("a", "r")
    refused = seed.cli("dags", "delete", "a", "-y")
    assert refused.exit_code == 2
    assert "1 run(s) of a are active, r is one" in refused.stderr


def test_a_dag_that_its_file_defines_needs_y_and_comes_back(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    refused = seed.cli("dags", "delete", "a")
    assert "is still defined by etl.py and would come back" in refused.stderr
    seed.sql("UPDATE dag_file SET stamp = 'as it is'")
    done = seed.cli("dags", "delete", "a", "-y")
    assert done.stderr == "etl.py still defines it: it comes back as a new DAG\n"
    assert seed.scalar("SELECT stamp FROM dag_file") == ""
