"""BashOperator: output, exit codes, environment, and ending what it started."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from roost.exceptions import DagError
from roost.operators import BashOperator
from tests.dag.case import a_dag, raw, run


def bash(command: str, **arguments: Any) -> Any:
    return run(BashOperator(task_id="b", bash_command=command, dag=a_dag(), **arguments))


def test_the_last_line_is_the_return_value(capfd: pytest.CaptureFixture[str]) -> None:
    outcome, values = bash("echo one; echo two >&2; echo 'three  '")
    assert (outcome.kind, values) == ("success", {"return_value": "three"})
    assert capfd.readouterr().out == "one\ntwo\nthree  \n"


def test_no_output_is_no_return_value() -> None:
    assert bash("true")[1] == {}
    assert bash("printf end")[1] == {"return_value": "end"}
    assert bash("echo 1", do_xcom_push=False)[1] == {}
    assert bash("echo 5", output_processor=int)[1] == {"return_value": 5}


def test_output_of_any_bytes_and_length() -> None:
    assert bash(r"printf 'a\xffb'")[1] == {"return_value": r"a\xffb"}
    outcome, values = bash("head -c 3000000 /dev/zero | tr '\\0' x")
    assert outcome.kind == "success"
    assert set(values["return_value"]) == {"x"}
    assert len(values["return_value"]) <= 1 << 18


@pytest.mark.parametrize(
    ("command", "kind", "text"),
    [
        ("exit 3", "failed", "exit code 3"),
        ("exit 99", "skipped", None),
        ("kill -9 $$", "failed", "signal SIGKILL"),
        ("nonsense_command", "failed", "exit code 127"),
        ("if", "failed", "exit code 2"),
    ],
)
def test_exit_codes(command: str, kind: str, text: str | None) -> None:
    outcome, _ = bash(command)
    assert outcome.kind == kind
    assert text is None or text in (outcome.error or "")


def test_which_exit_code_skips_can_be_chosen() -> None:
    assert bash("exit 99", skip_on_exit_code=None)[0].kind == "failed"
    assert bash("exit 7", skip_on_exit_code=[7, 8])[0].kind == "skipped"
    assert bash("exit 99", skip_on_exit_code=[7, 8])[0].kind == "failed"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "1")
    monkeypatch.setenv("ROOST_WORKER_TOKEN", "mark")
    show = 'echo "$MINE-$GIVEN-$ROOST_WORKER_TOKEN-$ROOST_CTX_TASK_ID-$ROOST_CTX_DISPATCH_ID"'
    assert bash(show)[1] == {"return_value": "1--mark-b-7"}
    assert bash(show, env={"GIVEN": "{{ ds }}"})[1] == {"return_value": "-2026-01-31-mark-b-7"}
    added = bash(show, env={"GIVEN": 5}, append_env=True)[1]
    assert added == {"return_value": "1-5-mark-b-7"}


def test_values_given_by_env_are_not_read_by_the_shell(tmp_path: Path) -> None:
    task = BashOperator(
        task_id="b",
        bash_command='echo "$NAME"',
        env={"NAME": "{{ dag_run.conf['name'] }}"},
        append_env=True,
        dag=a_dag(),
    )
    hostile = f"$(touch {tmp_path}/owned); `id`"
    assert run(task, conf=raw({"name": hostile}))[1] == {"return_value": hostile}
    assert list(tmp_path.iterdir()) == []


def test_folder(tmp_path: Path) -> None:
    assert bash("pwd", cwd=str(tmp_path))[1] == {"return_value": str(tmp_path)}
    assert "is not a folder" in (bash("pwd", cwd=str(tmp_path / "no"))[0].error or "")
    folder = bash("pwd; ls -A | wc -l; pwd")[1]["return_value"]
    assert not os.path.exists(folder)


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(DagError, match="bash_command is empty"):
        BashOperator(task_id="b", bash_command=" ")


def is_alive(pid: int) -> bool:
    """Whether ``pid`` runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def test_d7_a_timeout_ends_the_whole_group(capfd: pytest.CaptureFixture[str]) -> None:
    # A grandchild that holds the output open, and a shell that waits for it.
    outcome, _ = bash_for("sleep 60 & echo $! $$; wait", 400_000)
    assert outcome.kind == "failed"
    assert "TaskTimeout" in (outcome.error or "")
    pids = [int(pid) for pid in capfd.readouterr().out.split()]
    assert len(pids) == 2
    assert [pid for pid in pids if is_alive(pid)] == []


def test_d7_what_ignores_sigterm_is_killed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.operators.bash._GRACE_S", 0.1)
    outcome, _ = bash_for("trap '' TERM; echo $$; while :; do sleep 0.05; done", 400_000)
    assert "TaskTimeout" in (outcome.error or "")
    assert not is_alive(int(capfd.readouterr().out))


def test_an_error_of_our_own_ends_the_command_too() -> None:
    outcome, _ = bash("echo x; sleep 60", output_encoding="nonsense")
    assert "unknown encoding: nonsense" in (outcome.error or "")


def bash_for(command: str, limit_us: int) -> Any:
    task = BashOperator(task_id="b", bash_command=command, dag=a_dag())
    return run(task, execution_timeout_us=limit_us)


def test_sigterm_ends_the_group_and_the_task(tmp_path: Path) -> None:
    fifo = tmp_path / "started"
    os.mkfifo(fifo)

    def stop_when_started() -> None:
        fifo.read_text()  # blocks until the command runs
        os.kill(os.getpid(), signal.SIGTERM)

    helper = threading.Thread(target=stop_when_started)
    helper.start()
    # The handler runs in the main thread, wherever the signal lands.
    outcome, _ = bash(f"echo go > {fifo}; sleep 60")
    helper.join()
    assert "told to stop (SIGTERM)" in (outcome.error or "")


def test_the_command_dies_with_a_task_that_is_killed(tmp_path: Path) -> None:
    script = (
        "from tests.dag.case import a_dag, run\n"
        "from roost.operators import BashOperator\n"
        "run(BashOperator(task_id='b', bash_command='echo $$; exec sleep 60', dag=a_dag()))\n"
    )
    command = [sys.executable, "-c", script]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as task:
        assert task.stdout is not None
        pid = int(task.stdout.readline())
        gone = os.pidfd_open(pid)
        task.kill()
    try:
        assert select.select([gone], [], [], 20)[0] == [gone]
    finally:
        os.close(gone)
