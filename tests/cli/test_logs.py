"""``tasks logs``: the bytes a task wrote, or why there are none."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from roost.support.logfile import log_path
from tests.cli.seed import MOMENT, Seed, chain


def write(seed: Seed, number: int, data: bytes) -> Path:
    path = Path(log_path(seed.home / "logs", "a", "r", "x", -1, number))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_the_last_try_or_the_one_asked_for(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    seed.instance(key, "x", state="success", try_number=2, start_date=MOMENT)
    write(seed, 1, b"first\n")
    write(seed, 2, b"second \xff\n")
    assert seed.cli("tasks", "logs", "a", "r", "x").stdout_bytes == b"second \xff\n"
    assert seed.cli("tasks", "logs", "a", "r", "x", "--try", "1").stdout == "first\n"
    assert "there is attempt=1.log, attempt=2.log" in (
        seed.cli("tasks", "logs", "a", "r", "x", "--try", "3").stderr
    )


def test_why_there_is_none(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    assert "has not started (none): there is no log; `roost tasks why a r x` says why" in (
        seed.cli("tasks", "logs", "a", "r", "x").stderr
    )
    seed.instance(key, "x", state="skipped")
    assert "is skipped without having run" in seed.cli("tasks", "logs", "a", "r", "x").stderr
    seed.instance(key, "x", state="failed", start_date=MOMENT, hostname="elsewhere")
    assert "the log is on host elsewhere" in seed.cli("tasks", "logs", "a", "r", "x").stderr
    seed.instance(key, "x", hostname=socket.gethostname())
    assert "is logging.folder right?" in seed.cli("tasks", "logs", "a", "r", "x").stderr


def test_follow_ends_with_the_task_and_misses_nothing(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    seed.instance(key, "x", state="running", try_number=1, start_date=MOMENT)
    path = write(seed, 1, b"one\n")

    def finish() -> None:
        with path.open("ab") as log:
            log.write(b"two\n")
        seed.instance(key, "x", state="success")

    timer = threading.Timer(0.3, finish)
    timer.start()
    result = seed.cli("tasks", "logs", "a", "r", "x", "-f")
    timer.join()
    assert result.stdout == "one\ntwo\n"


def fail(seed: Seed, reason: str, *, number: int = 1, state: str = "failed") -> None:
    """The event that ended a try of task x."""
    seed.sql(
        "INSERT INTO event_log (id, at, actor, event, ti_id, try_number, to_state, reason) "
        "SELECT coalesce(max(e.id), 0) + 1, :at, 'test', 'fail', "
        "(SELECT id FROM task_instance WHERE task_id = 'x'), :number, :state, :reason "
        "FROM event_log e",
        at=MOMENT,
        number=number,
        state=state,
        reason=reason,
    )


def test_the_log_tells_of_an_end_that_the_task_could_not_write(seed: Seed) -> None:
    """A killed process, a trigger that failed or timed out: the log ends with the reason."""
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    seed.instance(key, "x", state="failed", try_number=2, start_date=MOMENT)
    write(seed, 1, b"one\n")
    write(seed, 2, b"two\nValueError: no\n")
    fail(seed, "killed by signal 9 (SIGKILL)", state="up_for_retry")
    fail(seed, "Traceback (most recent call last):\nValueError: no", number=2)
    assert seed.cli("tasks", "logs", "a", "r", "x", "--try", "1").stdout == (
        "one\n[2026-01-05T06:00:00.000+0000] ERROR - up_for_retry: killed by signal 9 (SIGKILL)\n"
    )
    # What the task wrote itself is not said twice.
    assert seed.cli("tasks", "logs", "a", "r", "x").stdout == "two\nValueError: no\n"


@pytest.mark.parametrize("state", ["success", "skipped"])
def test_an_end_by_a_trigger_or_a_user_is_no_error_where_it_is_none(seed: Seed, state: str) -> None:
    """D11: what a trigger ended well is told as such, too."""
    seed.dags(chain("a", "x"))
    seed.instance(seed.run("a", "r"), "x", state=state, try_number=1, start_date=MOMENT)
    write(seed, 1, b"one\n")
    fail(seed, "ended by its trigger", state=state)
    assert seed.cli("tasks", "logs", "a", "r", "x").stdout == (
        f"one\n[2026-01-05T06:00:00.000+0000] INFO - {state}: ended by its trigger\n"
    )


def test_how_a_failed_task_ended_is_told_even_without_its_log(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    seed.instance(key, "x", state="failed", try_number=1, start_date=MOMENT, hostname="elsewhere")
    fail(seed, "Traceback (most recent call last):\nValueError: no rows")
    result = seed.cli("tasks", "logs", "a", "r", "x")
    assert result.stdout.endswith("\nValueError: no rows\n")
    assert "the log is on host elsewhere" in result.stderr
    assert seed.cli("tasks", "why", "a", "r", "x").stdout.endswith(": ValueError: no rows\n")


def test_a_map_index_of_a_task_that_is_not_mapped(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    seed.run("a", "r")
    result = seed.cli("tasks", "logs", "a", "r", "x", "--map-index", "4")
    assert result.stderr == "roost: task 'x' is not mapped; leave out --map-index\n"


def test_secrets_of_the_database_are_hidden_whoever_wrote_them(keyed: Seed) -> None:
    """A program that a task started writes past its Python; the command hides it all the same."""
    keyed.dags(chain("a", "x"))
    key = keyed.run("a", "r")
    keyed.cli("connections", "add", "wh", "--conn-uri", "pg://me:canary-1@h?api_key=canary-2")
    keyed.cli("variables", "set", "my_token", "canary-3")
    keyed.cli("variables", "set", "conf", '{"password": "canary-4"}')
    keyed.cli("variables", "set", "plain", "visible")
    ti_id = keyed.instance(key, "x", state="failed", try_number=1, start_date=MOMENT)
    write(keyed, 1, b"canary-1 canary-2 canary-3\ncanary-4 visible \xff can")
    shown = keyed.cli("tasks", "logs", "a", "r", "x").stdout_bytes
    assert shown == b"*** *** ***\n*** visible \xff can"
    keyed.sql(
        "INSERT INTO event_log (at, actor, event, dag_run_id, ti_id, ti_version, try_number, "
        "from_state, to_state, reason) VALUES (1, 'scheduler:1', 'fail', :key, :ti, 1, 1, "
        "'running', 'failed', 'ValueError: canary-1')",
        key=key,
        ti=ti_id,
    )
    assert keyed.cli("tasks", "logs", "a", "r", "x").stdout.endswith("failed: ValueError: ***\n")


def test_a_lost_key_does_not_keep_logs_from_being_read(keyed: Seed) -> None:
    keyed.dags(chain("a", "x"))
    key = keyed.run("a", "r")
    keyed.cli("variables", "set", "my_token", "canary-3")
    (keyed.home / "encryption.key").unlink()
    keyed.instance(key, "x", state="failed", try_number=1, start_date=MOMENT)
    write(keyed, 1, b"text\n")
    assert keyed.cli("tasks", "logs", "a", "r", "x").stdout == "text\n"


def test_a_triggers_words_may_be_on_another_host(seed: Seed) -> None:
    """D21: a deferred task whose triggerer is elsewhere has a part of its log there."""
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    ti = seed.instance(key, "x", state="deferred", try_number=1, start_date=MOMENT)
    job = seed.job("triggerer")
    trigger = seed.trigger(ti, key, job_id=job)
    path = Path(log_path(seed.home / "logs", "a", "r", "x", -1, 1))
    path.parent.mkdir(parents=True)
    path.write_text("begun\n")
    result = seed.cli("tasks", "logs", "a", "r", "x")
    assert result.stdout == "begun\n"
    assert f"what trigger {trigger} logs is on host here" in result.stderr
