"""Each code example of the concepts document, run to the outcome that its prose states.

The examples are files under examples/concepts. Structure is checked on the loaded DAG, behaviour
by running it in a simulation; packages and ignore files go through the parser's own discovery.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roost.dag import DAG, Variable, chain
from roost.dag.loader import load_dag_file, read_source
from roost.dag.parse import parse_dag_file
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError
from roost.operators import BashOperator, DummyOperator, PythonOperator
from roost.scheduler.parsing.folder import find_files
from roost.testing import Simulation, Stub, run_dag, run_schedule

CONCEPTS = Path(__file__).parents[2] / "examples" / "concepts"
DAGS = CONCEPTS / "dags"
FIRST = datetime(2016, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2019, 2, 28, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def dags_of(name: str) -> dict[str, DAG]:
    """The DAGs that a file defines."""
    path = str(DAGS / f"{name}.py")
    return load_dag_file(path, read_source(path), str(DAGS)).dags


def edges(dag: DAG) -> set[tuple[str, str]]:
    """Every edge as (upstream, downstream)."""
    return {(task.task_id, child) for task in dag.tasks for child in task.downstream_task_ids}


def pairs(text: str) -> set[tuple[str, str]]:
    """``"a>b b>c"`` as edges."""
    return {(up, down) for up, down in (pair.split(">") for pair in text.split())}


@pytest.fixture(autouse=True)
def forget_helpers() -> Iterator[None]:
    """A helper module of one test is not another's."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"subdag", "package1"}:
            del sys.modules[name]


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_a_dag_file_without_an_error(path: Path) -> None:
    """S1: all files are parsed as the scheduler's parser would."""
    assert parse_dag_file(str(path), str(DAGS)).error is None


def test_the_introduction() -> None:
    """S2: A before B, C whenever; A times out, B has 5 restarts; at 10 pm, from a date on."""
    dag = dags_of("intro")["intro"]
    assert edges(dag) == {("a", "b")}
    runs = run_schedule(
        DAGS / "intro.py",
        FIRST - DAY,
        FIRST + 2 * DAY,
        stubs={
            "a": Stub(takes=timedelta(minutes=4)),
            "b": Stub(raises=ValueError, times=5),
            "c": Stub(),
        },
    )
    (run,) = runs
    assert run.logical_date == FIRST + 22 * HOUR
    assert run.start_date == FIRST + DAY + 22 * HOUR
    later = run_dag(
        DAGS / "intro.py",
        logical_date=FIRST,
        stubs={"a": Stub(takes=timedelta(minutes=6)), "*": Stub()},
    )
    assert later.states == {"a": "failed", "b": "upstream_failed", "c": "success"}
    with Simulation(
        DAGS / "intro.py",
        start=FIRST,
        stubs={"a": Stub(takes=timedelta(minutes=4)), "b": Stub(raises=ValueError, times=5)},
    ) as simulation:
        run = simulation.trigger()
        simulation.run()
        assert run.states == {"a": "success", "b": "success", "c": "success"}
        assert run["b"].tries == 6


def test_scope() -> None:
    """S5: dag_1 is loaded, the DAG in the function's local scope is not."""
    assert list(dags_of("scope")) == ["this_dag_will_be_discovered"]


def test_default_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """S6: the operator's owner is that of default_args."""
    dag = dags_of("default_arguments")["default_arguments"]
    assert dag.get_task("dummy").owner == "roost"
    assert capsys.readouterr().out == "roost\n"


def test_context_manager(capsys: pytest.CaptureFixture[str]) -> None:
    """S7: op.dag is dag."""
    dags_of("context_manager")
    assert capsys.readouterr().out == "True\n"


def test_relations_between_tasks_and_between_task_instances() -> None:
    """S19-S24: a run for each day up to now; each with both tasks and its own date; in order."""
    with Simulation(DAGS / "relations.py", start=FIRST + 3 * DAY) as simulation:
        simulation.run()
        runs = simulation.runs()
        assert [run.logical_date for run in runs] == [FIRST, FIRST + DAY, FIRST + 2 * DAY]
        assert all(run.states == {"task_1": "success", "task_2": "success"} for run in runs)
    with Simulation(
        DAGS / "relations.py", start=FIRST, stubs={"task_1": Stub(raises=ValueError)}
    ) as simulation:
        run = simulation.trigger()
        simulation.run()
        assert run["task_1"].events[:1] == ["schedule"]


def test_a_task_in_no_dag_is_not_loaded() -> None:
    """S10: operators are only loaded if they are assigned to a DAG."""
    dag = DAG("d")
    DummyOperator(task_id="inside", dag=dag)
    DummyOperator(task_id="nowhere")
    assert run_dag(dag).states == {"inside": "success"}


def test_task_lifecycle() -> None:
    """S25: no status, scheduled, queued, running, success."""
    with DAG("d") as dag:
        DummyOperator(task_id="first") >> BashOperator(task_id="t", bash_command="true")
    with Simulation(dag, start=FIRST, stubs={"t": Stub(takes=HOUR)}) as simulation:
        run = simulation.trigger()
        simulation.advance(HOUR / 2)
        assert run.states == {"first": "success", "t": "running"}
        simulation.run()
        assert run["t"].events == ["schedule", "enqueue", "start", "succeed"]
        assert run["t"].state == "success"


def test_dag_assignment() -> None:
    """S8, S9: explicit, deferred and inferred; it cannot be changed, and the same again is fine."""
    dag = dags_of("dag_assignment")["dag_assignment"]
    assert dag.task_ids == ["op1", "op2", "op3"]
    assert edges(dag) == {("op2", "op3")}
    task = dag.get_task("op1")
    task.dag = dag
    with pytest.raises(DagError, match="can not be changed"):
        task.dag = DAG("other")


@pytest.mark.parametrize(
    ("dag_id", "expected"),
    [
        *((f"bitshift_one_edge_{number}", "op1>op2") for number in range(1, 5)),
        ("bitshift_chain", "op1>op2 op2>op3 op4>op3"),
        ("bitshift_dag", "op1>op2"),
        ("bitshift_pipeline", "dummy_1>bash_1 bash_1>python_1"),
        ("bitshift_lists", "op1>op2 op1>op3 op2>op4 op3>op4"),
    ],
)
def test_bitshift_composition(dag_id: str, expected: str) -> None:
    """S31-S34: the edges that the document says each form is equivalent to."""
    assert edges(dags_of("bitshift")[dag_id]) == pairs(expected)


def test_the_pipeline_says_hello_and_goodbye(capfd: pytest.CaptureFixture[str]) -> None:
    """S32: three operators in one expression, run one after the other."""
    run = run_dag(DAGS / "bitshift.py", dag_id="bitshift_pipeline")
    assert run.state == "success"
    assert run["bash_1"].xcom() == "HELLO!"
    assert "GOODBYE!" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("dag_id", "expected"),
    [
        ("cross_downstream", " ".join(f"op{a}>op{b}" for a in (1, 2, 3) for b in (4, 5, 6))),
        ("chain_of_five", "op1>op2 op2>op3 op3>op4 op4>op5"),
        ("chain_of_one_list", "op1>op2 op2>op3 op3>op4 op4>op5"),
        ("chain_with_a_list", "op1>op2 op1>op3 op2>op4 op3>op4"),
        ("chain_of_lists", "op1>op2 op1>op3 op2>op4 op3>op5 op4>op6 op5>op6"),
    ],
)
def test_relationship_builders(dag_id: str, expected: str) -> None:
    """S35, S36 with its ruling: one list alone is chained member by member."""
    assert edges(dags_of("relationship_builders")[dag_id]) == pairs(expected)


def test_lists_of_different_size_cannot_be_chained() -> None:
    """S36: they must have the same size."""
    with DAG("d"):
        ops = [DummyOperator(task_id=f"op{n}") for n in range(5)]
    with pytest.raises(DagError, match="3 and 2"):
        chain(ops[:3], ops[3:])


def test_pools_and_priorities() -> None:
    """S37, S39, S42, S44: one slot; the path with the heavier end goes first, the rest waits."""
    run = run_dag(
        DAGS / "pools.py",
        logical_date=FIRST,
        pools={"ep_data_pipeline_db_msg_agg": 1},
        stubs={"aggregate_db_message_job": Stub(takes=HOUR), "urgent": Stub(takes=HOUR)},
    )
    assert run.state == "success"
    assert run["urgent"].end_date == FIRST + HOUR
    assert run["aggregate_db_message_job"].start_date == FIRST + HOUR


def test_xcoms() -> None:
    """S54-S58: pushed by returning, pulled in code and in a template."""
    run = run_dag(DAGS / "xcoms.py")
    assert run.state == "success"
    assert run["pulling_task"].xcom() == {"answer": 42}
    assert run["query"].xcom() == "SELECT * FROM pigeons"


def test_variables() -> None:
    """S60-S63: plain, as JSON, with a default; a missing one is a KeyError; in templates."""
    run = run_dag(DAGS / "variables.py", variables={"foo": "first", "bar": '{"name": "second"}'})
    assert run["read"].xcom() == ["first", {"name": "second"}, None]
    assert run["missing"].state == "failed"
    assert "Variable 'nowhere' does not exist" in (run["missing"].error or "")
    assert (run["value"].xcom(), run["json"].xcom()) == ("first", "second")


def test_an_xcom_is_for_tasks_of_its_run_and_a_variable_for_all() -> None:
    """S53, S59: an XCom has a key and a value and is of one task instance; a Variable is global."""

    def leave(ti: Any, run_id: str) -> None:
        ti.xcom_push("here", run_id)
        Variable.set("everywhere", run_id)

    def look(ti: Any) -> list[Any]:
        return [ti.xcom_pull("leave", key="here"), Variable.get("everywhere", default_var=None)]

    with DAG("d") as dag:
        PythonOperator(task_id="leave", python_callable=leave) >> PythonOperator(
            task_id="look", python_callable=look
        )
    with Simulation(dag, start=FIRST) as simulation:
        first = simulation.trigger(run_id="first")
        simulation.run()
        second = simulation.trigger(run_id="second", logical_date=FIRST + DAY)
        simulation.run()
        assert first["look"].xcom() == ["first", "first"]
        assert second["look"].xcom() == ["second", "second"]
        assert first["leave"].xcom("here") == "first"


def test_queues() -> None:
    """S51: any task may name a queue; the default is what a worker listens to by default."""
    dag = DAG("d")
    assert DummyOperator(task_id="a", dag=dag).queue == "default"
    assert DummyOperator(task_id="b", dag=dag, queue="spark").queue == "spark"
    serialized = {task.task_id: task.queue for task in serialize_dag(dag).tasks}
    assert serialized == {"a": "default", "b": "spark"}


def test_branching_by_an_xcom() -> None:
    """S70-S73: 5 is at least 5, so the work continues; otherwise it stops."""
    run = run_dag(DAGS / "branching.py", dag_id="branching")
    assert run.states == {
        "start_task": "success", "branch_task": "success",
        "continue_task": "success", "stop_task": "skipped",
    }  # fmt: skip
    other = run_dag(
        DAGS / "branching.py", dag_id="branching", stubs={"start_task": Stub(returns="4")}
    )
    assert other["continue_task"].state == "skipped"
    assert other["stop_task"].state == "success"


def test_a_join_below_the_branch_is_not_skipped() -> None:
    """S72: join is a direct child and downstream of the branch that was followed."""
    run = run_dag(DAGS / "branching.py", dag_id="branching_join")
    assert run.states == {
        "branching": "success", "branch_a": "success", "branch_b": "skipped", "join": "success",
    }  # fmt: skip


@pytest.mark.parametrize(("day", "monthly"), [(1, "success"), (2, "skipped")])
def test_a_branch_operator_of_ones_own(day: int, monthly: str) -> None:
    """S74: the extra branch runs on the first day of the month."""
    run = run_dag(DAGS / "base_branch.py", logical_date=FIRST.replace(day=day))
    assert run.states == {
        "branch": "success", "daily_task_id": "success", "monthly_task_id": monthly,
    }  # fmt: skip


def test_subdags() -> None:
    """S95: the task is a run of the inner DAG; that is not scheduled by itself."""
    with Simulation(DAGS / "main_dag.py", start=FIRST) as simulation:
        run = simulation.trigger("parent_dag")
        simulation.run()
        assert run.states == {"child_dag": "success"}
        (inner,) = simulation.runs("parent_dag.child_dag")
        assert (inner.run_id, inner.states) == (run.run_id, {"dummy_task": "success"})
        assert "defer" in run["child_dag"].events
        simulation.advance(3 * HOUR)
        assert len(simulation.runs("parent_dag")) == len(simulation.runs("parent_dag.child_dag"))


def test_branch_without_a_trigger_rule() -> None:
    """S75, S88: skipped cascades through all_success into the join."""
    (run,) = run_schedule(DAGS / "branch_without_trigger.py", FEBRUARY, FEBRUARY + 2 * DAY)
    assert run.states == {
        "run_this_first": "success", "branching": "success", "branch_a": "success",
        "follow_branch_a": "success", "branch_false": "skipped", "join": "skipped",
    }  # fmt: skip


def test_branch_with_a_trigger_rule() -> None:
    """S83, S88: none_failed takes a skipped parent for a valid end."""
    (run,) = run_schedule(DAGS / "branch_with_trigger.py", FEBRUARY, FEBRUARY + 2 * DAY)
    assert (run["branch_false"].state, run["join"].state) == ("skipped", "success")


def test_latest_run_only() -> None:
    """S90-S94: all but the latest run skip latest_only and everything downstream, task4 too."""
    start = datetime(2019, 2, 28, 3, 30, tzinfo=UTC)
    with Simulation(DAGS / "latest_only_with_trigger.py", start=start) as simulation:
        simulation.run()
        *older, latest = simulation.runs()
        skipped = dict.fromkeys(["latest_only", "task1", "task3", "task4"], "skipped")
        assert [run.states for run in older] == [{**skipped, "task2": "success"}] * 2
        assert latest.states == dict.fromkeys(
            ["latest_only", "task1", "task2", "task3", "task4"], "success"
        )
        manual = simulation.trigger(logical_date=start - 2 * HOUR)
        simulation.run()
        assert set(manual.states.values()) == {"success"}


def test_documentation() -> None:
    """S69: doc_md of the DAG and of the task are kept."""
    parsed = parse_dag_file(str(DAGS / "documentation.py"), str(DAGS))
    (dag,) = parsed.dags
    assert dag.doc_md == "\n### My great DAG\n"
    assert "[url](www.airbnb.com)" in dag.tasks[0].extra["doc_md"]


def test_templates() -> None:
    """S64, S66, S68: a macro in env, nested objects to any depth, a newline that is kept."""
    run = run_dag(DAGS / "templates.py", dag_id="templates", logical_date=FIRST)
    assert run["test_env"].xcom() == "2016-01-01"
    assert run["read_data"].xcom() == "/tmp/2016-01-01/my_file"  # noqa: S108 - the document's own
    assert run["transform_data"].xcom() == "/tmp/2016-01-01/my_file"  # noqa: S108
    text = run_dag(DAGS / "templates.py", dag_id="my-dag", logical_date=FIRST)
    assert text["text"].xcom() == "2016-01-01\n"


def test_hello_is_said_by_a_command() -> None:
    """S28: an operator runs what it is told, and a DAG takes it in by name."""
    dag = DAG("d")
    BashOperator(task_id="t", bash_command="echo hello", dag=dag)
    assert run_dag(dag)["t"].xcom() == "hello"


def test_packaged_dags(tmp_path: Path) -> None:
    """S13, S14: the modules at the root are loaded, the package beside them is only imported."""
    package = tmp_path / "packaged.zip"
    with zipfile.ZipFile(package, "w") as archive:
        for path in sorted((CONCEPTS / "packaged").rglob("*.py")):
            archive.write(path, path.relative_to(CONCEPTS / "packaged"))
    found = sorted(find_files(str(tmp_path)))
    assert found == ["packaged.zip/my_dag1.py", "packaged.zip/my_dag2.py"]
    for number, fileloc in enumerate(found, start=1):
        parsed = parse_dag_file(str(tmp_path / fileloc), str(tmp_path))
        assert (parsed.error, [dag.dag_id for dag in parsed.dags]) == (None, [f"my_dag{number}"])
    run = run_dag(CONCEPTS / "packaged" / "my_dag1.py")
    assert run["greet"].xcom() == "hello dag 1"


def test_ignore_file(tmp_path: Path) -> None:
    """S16-S18: the files and folders that the document lists are left out, another one is not."""
    (tmp_path / ".roostignore").write_text((CONCEPTS / "roostignore.txt").read_text())
    ignored = [
        "project_a_dag_1.py", "TESTING_project_a.py", "tenant_1.py", "project_a/dag_1.py",
        "tenant_1/dag_1.py",
    ]  # fmt: skip
    for name in [*ignored, "tenant.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("from roost.dag import DAG\n")
    assert list(find_files(str(tmp_path))) == ["tenant.py"]


def test_sla(capfd: pytest.CaptureFixture[str]) -> None:
    """S100, S103: due within an hour of its period, missed while it is blocked; told once."""
    start = FIRST + timedelta(minutes=5)
    with Simulation(
        DAGS / "sla.py", start=start, stubs={"slow": Stub(takes=9 * HOUR), "due": Stub()}
    ) as simulation:
        simulation.advance(timedelta(minutes=110))
        assert "missed" not in capfd.readouterr().out
        simulation.advance(HOUR)
        said = capfd.readouterr().out
        assert said.count("sla missed") == 1
        assert "due" in said and "slow" in said


def test_every_example_is_run_here() -> None:
    """An example that no test runs is none."""
    text = Path(__file__).read_text()
    for path in sorted(DAGS.glob("*.py")):
        name = "main_dag" if path.stem == "subdag" else path.stem  # imported by that one
        assert re.search(rf'"{name}(\.py)?"', text), path.name
