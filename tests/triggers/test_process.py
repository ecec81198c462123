"""SubprocessOperator and ProcessTrigger, with real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from roost.exceptions import DagError, RoostException
from roost.operators import SubprocessOperator
from roost.support import detached, typedjson
from roost.support.clock import from_us, now_us
from roost.support.detached import Detached
from roost.support.wire import DeferSpec
from roost.triggers import ProcessTrigger
from tests.dag.case import a_dag, raw, run
from tests.support.waiting import wait_until
from tests.triggers.case import descriptors, remade, until, waiting

SAYS = "echo one; read line < {go}; echo $line; exit ${{CODE:-0}}"


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """A pipe on which a command waits until something is written."""
    path = tmp_path / "go"
    os.mkfifo(path)
    return path


def start(folder: Path, *command: str, **environ: str) -> Detached:
    return detached.start(command, str(folder), environ={**os.environ, **environ})


def trigger_of(process: Detached, **more: Any) -> ProcessTrigger:
    return ProcessTrigger(*process, **more)


def gone(process: Detached) -> bool:
    return not process.is_alive()


def test_the_end_of_a_command_fires_with_its_code_and_output(tmp_path: Path, go: Path) -> None:
    process = start(tmp_path / "p", "sh", "-c", SAYS.format(go=go), CODE="7")

    async def main() -> None:
        async with waiting(trigger_of(process)) as (one,):
            await until(lambda: os.path.getsize(tmp_path / "p" / "output"))
            assert not one.done
            await asyncio.to_thread(go.write_text, "two\n")
            assert await one.payload() == {
                "exit_code": 7, "timed_out": False, "tail": "one\ntwo\n",
            }  # fmt: skip

    asyncio.run(main())


def test_how_it_ended_is_known_to_who_comes_later(tmp_path: Path) -> None:
    """A triggerer that was down while the command ended."""
    process = start(tmp_path / "p", "sh", "-c", "echo said; exit 3")
    wait_until(lambda: gone(process), what="its end")

    async def main() -> None:
        async with waiting(trigger_of(process)) as (one,):
            assert await one.payload() == {"exit_code": 3, "timed_out": False, "tail": "said\n"}

    asyncio.run(main())


def test_a_killed_command_has_no_exit_code(tmp_path: Path) -> None:
    process = start(tmp_path / "p", "sleep", "1000")

    async def main() -> None:
        async with waiting(trigger_of(process)) as (one,):
            os.killpg(process.pid, signal.SIGKILL)
            assert (await one.payload())["exit_code"] is None

    asyncio.run(main())


def test_a_pid_that_was_given_to_another_is_not_taken_for_it(tmp_path: Path) -> None:
    process = start(tmp_path / "p", "sleep", "1000")
    older = process._replace(started=process.started - 1)

    async def main() -> None:
        async with waiting(trigger_of(older)) as (one,):
            assert (await one.payload())["exit_code"] is None

    asyncio.run(main())
    assert process.is_alive()
    detached.kill(process.token, 0)


def test_at_its_deadline_it_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = "setsid sleep 1000 & trap '' TERM; echo on; while :; do sleep 1; done"
    process = start(tmp_path / "p", "bash", "-c", script)
    wait_until(lambda: (tmp_path / "p" / "output").read_text(), what="its beginning")

    async def main() -> None:
        past = trigger_of(process, deadline=from_us(now_us() - 1))
        async with waiting(past) as (one,):
            assert await one.payload() == {"exit_code": None, "timed_out": True, "tail": "on\n"}

    asyncio.run(main())
    assert bearing(process.token) == []


def bearing(token: str) -> list[str]:
    """Commands of the processes with this mark."""
    found = subprocess.run(["ps", "axeww", "-o", "pid,args"], capture_output=True, text=True).stdout
    return [line for line in found.splitlines() if f"{detached.DETACHED}={token}" in line]


def test_d10_on_kill_ends_the_command_and_cancelling_does_not(tmp_path: Path) -> None:
    process = start(tmp_path / "p", "bash", "-c", "sleep 1000 & sleep 1000")

    async def main() -> None:
        async with waiting(trigger_of(process)):
            await asyncio.sleep(0)
        assert process.is_alive()
        trigger = remade(trigger_of(process))
        assert isinstance(trigger, ProcessTrigger)
        await trigger.on_kill()

    asyncio.run(main())
    assert bearing(process.token) == []
    assert not (tmp_path / "p").exists()


def test_another_host_says_so_and_a_restarted_one_knows_that_it_is_gone(tmp_path: Path) -> None:
    process = start(tmp_path / "p", "sleep", "1000")

    async def main() -> None:
        far = process._replace(hostname="elsewhere", host_id="other:pid")
        async with waiting(trigger_of(far)) as (one,):
            with pytest.raises(RoostException, match=r"runs on host 'elsewhere' and this trigger"):
                await one.payload()
        async with waiting(trigger_of(process._replace(host_id="earlier boot"))) as (one,):
            assert (await one.payload())["exit_code"] is None

    asyncio.run(main())
    detached.kill(process.token, 0)


def test_nothing_of_a_cancelled_trigger_is_left(tmp_path: Path) -> None:
    process = start(tmp_path / "p", "sleep", "1000")
    before = descriptors()

    async def main() -> None:
        async with waiting(*[trigger_of(process) for _ in range(20)]):
            await until(lambda: descriptors() >= before + 20)

    asyncio.run(main())
    assert descriptors() == before
    detached.kill(process.token, 0)


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(RoostException, match="needs a detached command, not pid 0"):
        ProcessTrigger("f", "t", 0, 1, "h", "i")
    naive = from_us(0).replace(tzinfo=None)
    with pytest.raises(RoostException, match="deadline needs a time zone"):
        ProcessTrigger("f", "t", 5, 1, "h", "i", naive)
    with pytest.raises(DagError, match="command is empty"):
        SubprocessOperator(task_id="s", command="")
    missing = start(tmp_path / "p", "/no/such/program")
    wait_until(lambda: gone(missing), what="its end")
    assert detached.exit_code(missing.folder) == 127


# -- the operator


def operator(tmp_path: Path, command: Any, **more: Any) -> SubprocessOperator:
    return SubprocessOperator(
        task_id="s", command=command, folder=str(tmp_path / "files"), dag=a_dag(), **more
    )


def deferred(task: SubprocessOperator, **changes: Any) -> DeferSpec:
    outcome, _ = run(task, **changes)
    assert outcome.defer is not None, outcome.error
    assert outcome.defer.source == "roost.triggers.process:ProcessTrigger"
    return outcome.defer


def waited_for(spec: DeferSpec) -> Any:
    """What the trigger of a deferral fires with."""
    kwargs: Any = typedjson.decode(spec.kwargs)

    async def main() -> Any:
        async with waiting(ProcessTrigger(**kwargs)) as (one,):
            return await one.payload()

    return asyncio.run(main())


def resumed(task: SubprocessOperator, spec: DeferSpec) -> tuple[Any, Any]:
    event = raw({"event": waited_for(spec)})
    return run(task, next_method=spec.next_method, next_kwargs=event)


def test_the_operator_defers_shows_the_output_and_returns_its_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = operator(tmp_path, ["sh", "-c", 'echo one; echo "$WHO {{ ds }}"'], env={"WHO": "me"})
    spec = deferred(task)
    outcome, values = resumed(task, spec)
    assert (outcome.kind, values) == ("success", {"return_value": "me 2026-01-31"})
    assert "one\nme 2026-01-31\n" in capsys.readouterr().out
    assert not list((tmp_path / "files").iterdir())


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        ("exit 4", "failed", "failed with exit code 4"),
        ("kill -9 $$", "failed", r"failed with exit code 137 \(signal 9\)"),
        ("exit 99", "skipped", "exit code 99"),
        ("kill -9 $PPID", "failed", "was killed, or its host restarted"),
    ],
)
def test_how_it_ended_decides(tmp_path: Path, command: str, kind: str, said: str) -> None:
    task = operator(tmp_path, command)
    outcome, _ = resumed(task, deferred(task))
    assert outcome.kind == kind
    if kind == "failed":
        assert outcome.error
        assert re.search(said, outcome.error)


def test_a_second_dispatch_of_a_try_comes_back_to_the_command(tmp_path: Path, go: Path) -> None:
    """D26 and invariant S11: a lost worker neither starts it twice nor ends it."""
    ran = tmp_path / "ran"
    task = operator(tmp_path, f"echo x >> {ran}; read line < {go}; echo $line")
    first = deferred(task, dispatch_id=7)
    second = deferred(task, dispatch_id=8)
    assert typedjson.decode(first.kwargs) == typedjson.decode(second.kwargs)
    go.write_text("done\n")
    assert resumed(task, second)[1] == {"return_value": "done"}
    assert ran.read_text() == "x\n"


def test_a_new_try_ends_what_the_last_one_left(tmp_path: Path, go: Path) -> None:
    task = operator(tmp_path, f"read line < {go}")
    first: Any = typedjson.decode(deferred(task).kwargs)
    second: Any = typedjson.decode(deferred(task, try_number=2).kwargs)
    assert first["pid"] != second["pid"]
    assert bearing(first["token"]) == []
    assert bearing(second["token"])
    detached.kill(second["token"], 0)


def test_its_timeout_runs_from_its_start(tmp_path: Path) -> None:
    task = operator(tmp_path, "sleep 1000", timeout=timedelta(milliseconds=1))
    outcome, _ = resumed(task, deferred(task))
    assert "ended after its timeout, 0:00:00.001" in (outcome.error or "")


def test_without_deferring_it_waits_itself(tmp_path: Path) -> None:
    assert run(operator(tmp_path, "echo here", deferrable=False))[1] == {"return_value": "here"}
    late = operator(tmp_path, "sleep 1000", deferrable=False, timeout=0.001)
    assert "ended after its timeout" in (run(late)[0].error or "")


def test_stopping_the_task_before_it_defers_ends_the_command(tmp_path: Path) -> None:
    task = operator(tmp_path, "sleep 1000")
    task._process = start(tmp_path / "p", "sleep", "1000")
    task.on_kill()
    assert bearing(task._process.token) == []


def test_what_a_command_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    """Invariant S18: after the task's end nothing of it runs."""
    task = operator(tmp_path, "setsid sleep 1000 & echo started")
    spec = deferred(task)
    kwargs: Any = typedjson.decode(spec.kwargs)
    outcome, _ = resumed(task, spec)
    assert outcome.kind == "success", outcome.error
    assert bearing(kwargs["token"]) == []


def test_another_host_takes_what_the_event_tells(tmp_path: Path) -> None:
    event = {"exit_code": 0, "timed_out": False, "tail": "far\naway"}
    done = run(
        operator(tmp_path, "x"), next_method="execute_complete", next_kwargs=raw({"event": event})
    )
    assert done[1] == {"return_value": "away"}
