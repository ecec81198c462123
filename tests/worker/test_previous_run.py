"""The earlier run that a task may ask for (S64)."""

from __future__ import annotations

from pathlib import Path

from roost.models.engine import open_engine, read
from roost.operators import EmptyOperator
from roost.support.crypto import Keyring, new_key
from roost.support.task_requests import PreviousRun, Reply
from roost.worker.answers import Answers
from roost.worker.attendant import Asked
from tests.cli.seed import DAY_US, MOMENT, Seed, chain
from tests.dag.case import a_dag, spec_for


def test_s64_the_newest_success_before_the_asking_run(database_url: str, tmp_path: Path) -> None:
    """S64: not a failed one, not a later one, not another DAG's; none for a run without date."""
    seed = Seed(database_url, tmp_path)
    seed.dags(chain("d", "t"), chain("other", "t"))
    for number, (dag_id, state, days) in enumerate(
        [("d", "success", -3), ("d", "success", -2), ("d", "failed", -1), ("d", "success", 1),
         ("other", "success", -1)]
    ):  # fmt: skip
        seed.run(dag_id, f"r{number}", state=state, date=MOMENT + days * DAY_US)
    task = EmptyOperator(task_id="t", dag=a_dag("d"))
    engine = open_engine(database_url)
    try:

        def ask(date: int | None) -> Reply:
            asked = Asked(spec_for(task, logical_date=date), PreviousRun())
            with read(engine) as tx:
                return Answers(Keyring(new_key())).reply(tx, 0, asked)

        (found,) = ask(MOMENT).runs
        assert (found.run_id, found.interval_start) == ("r1", MOMENT - 2 * DAY_US)
        assert ask(MOMENT - 3 * DAY_US).runs == []
        assert ask(None).runs == []
    finally:
        engine.dispose()
