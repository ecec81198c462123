"""``dags clear``, ``tasks clear``, ``tasks mark``, ``dags mark``: what they choose, ask and say."""

from __future__ import annotations

import pytest

from roost.dag.model import Length, SerializedExpand, SerializedTask
from tests.cli.seed import DAY_US, MOMENT, Seed, chain


def states(seed: Seed, dag_id: str = "a") -> dict[str, str]:
    """State by run and task."""
    rows = seed.sql(
        "SELECT r.run_id, i.task_id, i.state FROM task_instance i "
        "JOIN dag_run r ON r.id = i.dag_run_id WHERE r.dag_id = :d ORDER BY i.id",
        d=dag_id,
    )
    return {f"{row.run_id} {row.task_id}": row.state for row in rows}


def ended(seed: Seed, dag_id: str, run_id: str, *, date: int = MOMENT, **how: str) -> int:
    """A failed run whose tasks ended as told."""
    key = seed.run(dag_id, run_id, state="failed", date=date)
    for task_id, state in how.items():
        seed.instance(key, task_id, state=state, try_number=1)
    return key


def three(seed: Seed) -> int:
    seed.dags(chain("a", "x", "y", "z"))
    return ended(seed, "a", "r", x="success", y="failed", z="upstream_failed")


def test_a_dry_run_lists_and_changes_nothing(seed: Seed) -> None:
    three(seed)
    rows = seed.json("tasks", "clear", "a", "--run-id", "r", "-t", "^y$", "-d", "--dry-run")
    assert [(row["task_id"], row["state"], row["becomes"]) for row in rows] == [
        ("y", "failed", "none"),
        ("z", "upstream_failed", "none"),
    ]
    assert states(seed) == {"r x": "success", "r y": "failed", "r z": "upstream_failed"}


@pytest.mark.parametrize(
    ("args", "cleared"),
    [
        (["-t", "y"], {"y"}),
        (["-t", "y", "-u"], {"x", "y"}),
        (["-t", "y", "-d"], {"y", "z"}),
        (["-t", "[xz]"], {"x", "z"}),
        (["-f"], {"y", "z"}),
        (["-t", "x", "-d", "-f"], {"y", "z"}),
        ([], {"x", "y", "z"}),
    ],
)
def test_clear_chooses_by_name_place_and_state(
    seed: Seed, args: list[str], cleared: set[str]
) -> None:
    three(seed)
    done = seed.cli("tasks", "clear", "a", "--run-id", "r", *args, "-y")
    assert done.exit_code == 0, done.stderr
    plural = "" if len(cleared) == 1 else "s"
    assert done.stdout == f"cleared {len(cleared)} task instance{plural} in 1 run\n"
    assert {name for name, state in states(seed).items() if state == "none"} == {
        f"r {name}" for name in cleared
    }
    assert seed.scalar("SELECT state FROM dag_run") == "queued"


@pytest.mark.parametrize("command", ["clear", "mark"])
def test_h17_an_instance_with_its_downstream_is_its_group_and_all_behind(
    seed: Seed, command: str
) -> None:
    """H17: ``--map-index`` is about the mapped task and its group; what follows has no such one."""
    dag = chain("a", "x", "y", "z")
    dag.mapped_groups["g"] = SerializedExpand(factors=[Length("literal", count=2)])
    for task in dag.tasks[:2]:
        task.mapped_group = "g"
    seed.dags(dag)
    key = ended(seed, "a", "r", x="failed", y="failed", z="failed")
    for task_id, map_index in (("x", 0), ("y", 1)):  # the others do not matter here
        seed.instance(key, task_id, map_index=map_index)
    options = ["-d", "--map-index", "0", "-y"]
    if command == "clear":
        done = seed.cli("tasks", "clear", "a", "--run-id", "r", "-t", "^x$", *options)
    else:
        done = seed.cli("tasks", "mark", "a", "r", "x", "success", *options)
    assert done.exit_code == 0, done.stderr
    assert [name for name, state in states(seed).items() if state != "failed"] == ["r x", "r z"]


def test_runs_are_chosen_by_logical_date_both_ends_included(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    for day in range(4):
        ended(seed, "a", f"r{day}", date=MOMENT + day * DAY_US, x="failed")
    done = seed.cli("dags", "clear", "a", "-s", "2026-01-06T06:00", "-e", "2026-01-07T06:00", "-y")
    assert "in 2 runs" in done.stdout
    assert [name for name, state in states(seed).items() if state == "none"] == ["r1 x", "r2 x"]


def test_only_failed_runs_again_what_failed(seed: Seed) -> None:
    three(seed)
    assert seed.cli("dags", "clear", "a", "--run-id", "r", "--only-failed", "-y").exit_code == 0
    assert states(seed) == {"r x": "success", "r y": "none", "r z": "none"}


def test_without_a_terminal_it_asks_for_y(seed: Seed) -> None:
    three(seed)
    refused = seed.cli("tasks", "clear", "a", "--run-id", "r")
    assert refused.exit_code == 2
    assert "there is no terminal to ask at; give -y to do it, or --dry-run" in refused.stderr
    assert states(seed)["r y"] == "failed"


@pytest.mark.parametrize(("answer", "state"), [("y", "none"), ("n", "failed")])
def test_at_a_terminal_it_lists_and_asks(
    seed: Seed, monkeypatch: pytest.MonkeyPatch, answer: str, state: str
) -> None:
    three(seed)
    monkeypatch.setattr("roost.cli.choose.has_terminal", lambda: True)
    done = seed.cli("tasks", "clear", "a", "--run-id", "r", "-t", "y", input=f"{answer}\n")
    assert "Clear these 1 task instances?" in done.stdout
    assert "failed" in done.stdout
    assert states(seed)["r y"] == state


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-y"], "say which runs: either --run-id, or -s"),
        (["--run-id", "r", "-s", "2026-01-01"], "say which runs: either --run-id, or -s"),
        (["--run-id", "q"], "there is no run of a 'q'; `roost dags list-runs a` shows them"),
        (["-s", "soon"], "'soon' is no ISO 8601 moment"),
        (["-s", "2026-02-01", "-e", "2026-01-01"], "-s 2026-02-01 is later than -e 2026-01-01"),
        (["--run-id", "r", "-t", "["], "is no regular expression"),
        (["--run-id", "r", "-t", "nope"], "no task of a matches 'nope'"),
    ],
)
def test_wrong_use_is_one_line(seed: Seed, args: list[str], message: str) -> None:
    three(seed)
    refused = seed.cli("tasks", "clear", "a", *args)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_what_runs_gets_a_wish(seed: Seed) -> None:
    seed.dags(chain("a", "x", "y"))
    key = seed.run("a", "r")
    ti_id = seed.instance(key, "x", state="running", try_number=1, dispatch_id=1)
    seed.dispatch(ti_id, key)
    done = seed.cli("dags", "clear", "a", "--run-id", "r", "-r", "-y")
    assert done.stdout == (
        "cleared 1 task instance in 1 run; 1 of them queued or running: ended first, cleared then\n"
    )
    assert seed.scalar("SELECT wish FROM dispatch") == "clear"
    assert states(seed)["r x"] == "running"
    assert seed.scalar("SELECT changed FROM dag_run")


def with_subdag(seed: Seed) -> None:
    op = SerializedTask(task_id="sub", operator="SubDagOperator", extra={"subdag_id": "p.sub"})
    parent = chain("p", "x")
    parent.tasks.append(op)
    seed.dags(parent, chain("p.sub", "i", "j"))
    ended(seed, "p", "r", x="success", sub="failed")
    ended(seed, "p.sub", "r", i="success", j="failed")


def test_clearing_a_subdag_task_clears_what_is_inside(seed: Seed) -> None:
    """S97: clear cascades into the child run, which has the same run id."""
    with_subdag(seed)
    seed.cli("tasks", "clear", "p", "--run-id", "r", "-t", "sub", "-y")
    assert states(seed, "p") == {"r x": "success", "r sub": "none"}
    assert states(seed, "p.sub") == {"r i": "none", "r j": "none"}


def test_subdags_can_be_left_alone_and_only_failed_goes_down(seed: Seed) -> None:
    """S97: the filter applies inside as well."""
    with_subdag(seed)
    seed.cli("tasks", "clear", "p", "--run-id", "r", "-t", "sub", "-f", "-y")
    assert states(seed, "p.sub") == {"r i": "success", "r j": "none"}
    seed.cli("tasks", "mark", "p", "r", "sub", "failed", "-y")
    seed.cli("tasks", "clear", "p", "--run-id", "r", "-t", "sub", "--exclude-subdags", "-y")
    assert states(seed, "p.sub") == {"r i": "success", "r j": "none"}


def test_marking_a_subdag_task_leaves_what_is_inside(seed: Seed) -> None:
    """S97: mark does not cascade."""
    with_subdag(seed)
    seed.cli("tasks", "mark", "p", "r", "sub", "success", "-y")
    assert states(seed, "p")["r sub"] == "success"
    assert states(seed, "p.sub") == {"r i": "success", "r j": "failed"}


def test_marking_success_lets_the_run_go_on(seed: Seed) -> None:
    three(seed)
    done = seed.cli("tasks", "mark", "a", "r", "y", "success", "-y")
    assert done.stdout.splitlines() == [
        "marked success 1 task instance in 1 run",
        "cleared 1 task instance in 1 run, which had not run because of it",
    ]
    assert states(seed) == {"r x": "success", "r y": "success", "r z": "none"}
    assert seed.scalar("SELECT state FROM dag_run") == "queued"


def test_marking_reaches_other_runs_and_tasks(seed: Seed) -> None:
    seed.dags(chain("a", "x", "y"))
    for day in range(3):
        ended(seed, "a", f"r{day}", date=MOMENT + day * DAY_US, x="success", y="failed")
    rows = seed.json("tasks", "mark", "a", "r1", "y", "skipped", "--past", "-u", "--dry-run")
    assert {(row["run_id"], row["task_id"]) for row in rows} == {
        ("r0", "x"), ("r0", "y"), ("r1", "x"), ("r1", "y"),
    }  # fmt: skip
    seed.cli("tasks", "mark", "a", "r1", "y", "success", "--future", "-y")
    assert states(seed)["r0 y"] == "failed"
    assert states(seed)["r2 y"] == "success"


def test_marking_what_is_not_there(seed: Seed) -> None:
    three(seed)
    assert "task of a 'w'" in seed.cli("tasks", "mark", "a", "r", "w", "success", "-y").stderr
    refused = seed.cli("tasks", "mark", "a", "r", "x", "success", "--map-index", "3", "-y")
    assert "task 'x' is not mapped" in refused.stderr
    again = seed.cli("tasks", "mark", "a", "r", "x", "success", "-y")
    assert (again.exit_code, again.stderr) == (0, "nothing to mark: x is success already\n")


def test_a_whole_run_is_marked(seed: Seed) -> None:
    three(seed)
    rows = seed.json("dags", "mark", "a", "r", "success", "--dry-run")
    assert {row["task_id"]: row["becomes"] for row in rows} == {"y": "success", "z": "success"}
    assert seed.cli("dags", "mark", "a", "r", "success", "-y").exit_code == 0
    assert seed.scalar("SELECT state FROM dag_run") == "success"
    again = seed.cli("dags", "mark", "a", "r", "success", "-y")
    assert again.stderr == "nothing to mark: run r of a is success already\n"


def test_a_running_run_is_ended_by_its_scheduler(seed: Seed) -> None:
    seed.dags(chain("a", "x", "y"))
    seed.run("a", "r")
    done = seed.cli("dags", "mark", "a", "r", "failed", "-y")
    assert done.stderr == "run r is running until its scheduler has ended it\n"
    assert states(seed) == {"r x": "skipped", "r y": "skipped"}
    assert seed.scalar("SELECT wish FROM dag_run") == "failed"
