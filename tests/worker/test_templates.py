"""Templates and the zygote: loading, failing, dying, and being let go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from roost.worker.orphans import mark_of
from tests.worker.driving import HEADER, Driver


def parent(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def test_tasks_run_the_text_they_were_dispatched_with(driver: Driver, tmp_path: Path) -> None:
    """S30, design 2: the version is pinned, whatever the file holds by now."""
    (tmp_path / "dags" / "d.py").write_text("raise SystemError('the file on disk was run')")
    driver.tasks("return __file__")
    [write] = driver.run().xcoms
    assert bytes(write.value).decode() == f'"{tmp_path}/dags/d.py"'


def test_two_versions_of_a_file_run_side_by_side(driver: Driver) -> None:
    driver.tasks("return 1")
    first = driver.start()
    driver.tasks("return 2")
    second = driver.start()
    values = [bytes(driver.outcome(id_).xcoms[0].value) for id_ in (first, second)]
    assert values == [b"1", b"2"]


def test_a_file_that_cannot_be_imported_fails_its_tasks_with_the_traceback(
    driver: Driver,
) -> None:
    driver.source = HEADER + "import no_such_module\n"
    ids = [driver.start() for _ in range(3)]
    for dispatch_id in ids:
        outcome = driver.outcome(dispatch_id)
        assert outcome.kind == "failed"
        assert "No module named 'no_such_module'" in (outcome.error or "")
    driver.tasks("return 1")
    assert driver.run().kind == "success"


def test_a_task_that_the_file_does_not_hold_fails(driver: Driver) -> None:
    driver.tasks("return 1")
    outcome = driver.run("other")
    assert outcome.kind == "failed"
    assert "'other'" in (outcome.error or "")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("os._exit(7)", "importing the DAG file exited with code 7"),
        ("os.kill(os.getpid(), 11)", "importing the DAG file killed by signal 11 (SIGSEGV)"),
        ("time.sleep(1000)", "importing the DAG file took more than 2 s"),
    ],
)
def test_an_import_that_dies_or_hangs_fails_its_tasks(
    make_driver: Callable[..., Driver], line: str, error: str
) -> None:
    driver = make_driver(load_timeout_us=2_000_000)
    driver.source = f"{HEADER}{line}\n"
    outcome = driver.run()
    assert (outcome.kind, outcome.error) == ("failed", error)
    driver.tasks("return 1")
    assert driver.run().kind == "success"


def test_the_death_of_a_template_loses_its_tasks(driver: Driver, tmp_path: Path) -> None:
    """Their processes die with it, also what they had daemonised; nothing counts as a try."""
    begun = tmp_path / "begun"
    driver.tasks(
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        f"open({str(begun)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(1000)",
        "return 1",
    )
    dispatch_id = driver.start()
    driver.until(lambda: begun.exists() and begun.read_text(), "the task to begin")
    os.kill(parent(int(begun.read_text())), signal.SIGKILL)
    outcome = driver.outcome(dispatch_id)
    assert outcome.kind == "lost"
    assert outcome.error == "its template process killed by signal 9 (maybe out of memory)"
    marks = {mark_of(pid, "ROOST_TASK_MARK") for pid in driver.processes()}
    assert marks == {b"%020d" % 0}
    assert driver.run("t1").kind == "success"


def test_the_death_of_the_zygote_loses_all_tasks_and_a_new_one_is_started(
    driver: Driver, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    driver.tasks(
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        f"open({str(begun)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(1000)",
        "return 1",
    )
    dispatch_id = driver.start()
    driver.until(lambda: begun.exists() and begun.read_text(), "the task to begin")
    os.kill(parent(parent(int(begun.read_text()))), signal.SIGKILL)
    assert driver.outcome(dispatch_id).kind == "lost"
    assert driver.processes() == []
    assert driver.run("t1").kind == "success"


def test_what_is_idle_is_let_go_and_comes_back_when_needed(
    make_driver: Callable[..., Driver],
) -> None:
    driver = make_driver(template_idle_us=50_000)
    driver.tasks("return 1")
    driver.run()
    driver.until(lambda: driver.processes() == [], "the template and the zygote to be let go")
    assert driver.run().kind == "success"


def test_the_number_of_idle_templates_is_bounded(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(max_templates=2)
    for number in range(5):
        driver.tasks(f"return {number}")
        driver.run()
    driver.until(lambda: len(driver.processes()) <= 3, "at most a zygote and two templates")


def test_children_of_an_import_are_no_task(driver: Driver) -> None:
    """A DAG file may run commands while it is imported; their end confuses nobody."""
    driver.tasks("return 1")
    driver.source = driver.source.replace(
        "dag = DAG", "subprocess.run(['true'])\nsubprocess.Popen(['true'])\ndag = DAG"
    )
    for _ in range(3):
        assert driver.run().kind == "success"
