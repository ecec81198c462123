"""``triggers show``, ``why`` and ``load``; ``tasks why`` of a deferred task says the same."""

from __future__ import annotations

from typing import Any

import pytest

from roost.support.clock import SECOND, now_us
from roost.support.crypto import KEY_FILE, Keyring
from tests.cli.seed import MOMENT, Seed, chain


@pytest.fixture
def waits(seed: Seed) -> int:
    """A trigger of the poll lane, with a scheduler that lives; gives its id."""
    seed.dags(chain("a", "x"))
    seed.job("scheduler")
    key = seed.run("a", "r")
    ti = seed.instance(key, "x", state="deferred", try_number=2)
    kwargs = '{"job": "j1", "api_token": "t0p-s3cret", "url": "http://h/ab-v4riable"}'
    return seed.trigger(ti, key, kwargs=kwargs, job_id=None)


def why(seed: Seed, trigger: int) -> dict[str, Any]:
    found: dict[str, Any] = seed.json("triggers", "why", str(trigger))
    assert seed.cli("triggers", "why", "a", "r", "x").stdout == found["text"] + "\n"
    assert seed.cli("tasks", "why", "a", "r", "x").stdout == found["text"] + "\n"
    return found


def test_why_a_poll_trigger_has_not_fired(seed: Seed, waits: int) -> None:
    """D15, D18: no triggerer, none of its queue, none with room, in quarantine, gone."""
    assert why(seed, waits)["kind"] == "no_triggerer"
    full = seed.job("triggerer", detail='{"running": 2, "capacity": 2, "queues": ["gpu"]}')
    found = why(seed, waits)
    assert found["kind"] == "no_triggerer_for_queue"
    assert "`roost triggerer --queues default`" in found["text"]
    assert "those that run take gpu" in found["text"]
    seed.sql("UPDATE trigger SET queue = 'gpu'")
    found = why(seed, waits)
    assert found["kind"] == "no_capacity"
    assert "2 of 2 run" in found["text"]
    free = seed.job("triggerer", detail='{"running": 1, "capacity": 2, "queues": []}')
    assert why(seed, waits)["text"].endswith("no triggerer has taken it yet")
    seed.sql("UPDATE trigger SET job_id = :job", job=free)
    assert "polled by triggerer here:" in why(seed, waits)["text"]
    seed.sql("UPDATE trigger SET strikes = 1, trouble = 'blocked 2 s at f.py:3'")
    found = why(seed, waits)
    assert (found["kind"], found["numbers"]["strikes"]) == ("struck", 1)
    assert "strike 1 of 3: blocked 2 s at f.py:3; with strike 3 its task fails" in found["text"]
    seed.sql("UPDATE trigger SET strikes = 2")
    assert why(seed, waits)["kind"] == "quarantine"
    seed.sql("UPDATE job SET pid_start = 1 WHERE id = :job", job=free)
    assert why(seed, waits)["kind"] == "taken_over"
    seed.sql("UPDATE job SET pid_start = 1 WHERE id = :job", job=full)
    found = why(seed, waits)
    assert found["kind"] == "no_triggerer"
    assert "is gone, and no other is running" in found["text"]


def test_why_counts_what_is_held_beside_what_runs(seed: Seed) -> None:
    """D15: what was put aside or taken just now takes room, though no runner runs it yet."""
    seed.dags(chain("a", "x", "y"))
    key = seed.run("a", "r")
    job = seed.job("triggerer", detail='{"running": 0, "capacity": 1}')
    seed.trigger(seed.instance(key, "x", state="deferred", try_number=1), key, job_id=job)
    free = seed.trigger(seed.instance(key, "y", state="deferred", try_number=1), key)
    found = seed.json("triggers", "why", str(free))
    assert (found["kind"], found["numbers"]["capacity"]) == ("no_capacity", 1)
    assert "1 of 1 run; start another" in found["text"]
    same = seed.cli("tasks", "why", "a", "r", "y").stdout
    assert same == found["text"] + "\n"


def test_why_a_watcher_is_put_aside(seed: Seed) -> None:
    """D13: said for how long at most, with the trouble and whose code to mend."""
    job = seed.job("triggerer")
    seed.sql(
        "INSERT INTO trigger (lane, classpath, source, kwargs, next_kwargs, code_hash, fileloc, "
        "queue, created_at, watcher_hash, job_id, strikes, trouble) VALUES ('poll', 'mine.Drop', "
        "'mine:Drop', '{}', '{}', 'c', 'mine.py', 'default', 1, 'h', :job, 4, 'it exited')",
        job=job,
    )
    seed.sql(
        "INSERT INTO asset_watcher (dag_id, uri, name, hash, classpath, source, kwargs, "
        "code_hash, fileloc, queue) VALUES ('d', 'u', 'w', 'h', 'c', 's', '{}', 'c', 'f', 'q')"
    )
    found = seed.json("triggers", "why", "1")
    assert found["kind"] == "aside"
    assert "put aside after 4 strikes by triggerer here:" in found["text"]
    assert "after 150 s at most: it exited; mend mine.Drop in mine.py" in found["text"]
    seed.sql("UPDATE trigger SET strikes = 2")
    found = seed.json("triggers", "why", "1")
    assert found["kind"] == "quarantine"
    assert "with strike 3 it is put aside for a while" in found["text"]


def test_why_a_row_has_not_fired(seed: Seed, waits: int) -> None:
    """A timer that is not due, an event that nobody sent or that is there, one that is stored."""
    seed.job("triggerer")
    future = now_us() + 3600 * SECOND
    seed.sql("UPDATE trigger SET lane = 'timer', due_at = :at", at=future)
    assert ": due at 2" in why(seed, waits)["text"]
    seed.sql("UPDATE trigger SET due_at = :at", at=MOMENT)
    assert "a triggerer is about to see it" in why(seed, waits)["text"]
    seed.sql("UPDATE trigger SET lane = 'external', due_at = NULL, external_key = 'k'")
    assert why(seed, waits)["text"].endswith("waits for the event 'k'")
    seed.sql(
        "INSERT INTO external_event (external_key, payload, sender, created_at, expires_at) "
        "VALUES ('k', 'x', 'me', :now, :till)",
        now=MOMENT,
        till=future,
    )
    assert "one is there" in why(seed, waits)["text"]
    seed.sql("UPDATE trigger SET fired_at = :at", at=MOMENT)
    assert why(seed, waits)["kind"] == "resuming"
    seed.sql("DELETE FROM job WHERE kind = 'scheduler'")
    found = why(seed, waits)
    assert found["kind"] == "no_scheduler"
    assert "its event is stored" in found["text"]


def test_why_of_what_does_not_wait(seed: Seed, waits: int) -> None:
    gone = seed.cli("triggers", "why", "99").stderr
    assert gone.startswith("roost: there is no trigger 99: it has ended, or never was; ")
    assert gone.count("\n") == 1
    assert "is not in the range" in seed.cli("triggers", "show", "9" * 20).stderr
    assert seed.cli("triggers", "why", "a").exit_code == 2
    assert seed.cli("triggers", "why", "a", "r").exit_code == 2
    seed.sql("DELETE FROM trigger")
    result = seed.cli("triggers", "why", "a", "r", "x")
    assert result.exit_code == 2
    assert "waits for no trigger" in result.stderr


def test_show(keyed: Seed, waits: int) -> None:
    """S51: arguments are hidden by name and by value, encrypted ones decrypted where a key is."""
    keyed.cli("variables", "set", "my_secret", "ab-v4riable")
    (row,) = keyed.json("triggers", "show", str(waits))
    assert row["kwargs"] == {"job": "j1", "api_token": "***", "url": "http://h/***"}
    assert (row["trigger_id"], row["dag_id"], row["task_id"]) == (waits, "a", "x")
    assert (row["try_number"], row["epoch"], row["triggerer"], row["code"]) == (2, 0, None, "x")
    assert row["age_s"] > 0
    assert "no triggerer is running" in row["why"]
    plain = keyed.cli("triggers", "show", str(waits)).stdout
    assert "t0p-s3cret" not in plain
    assert "mypkg.JobTrigger" in plain
    sealed = Keyring(file=keyed.home / KEY_FILE).encrypt('{"job": "j2"}')
    keyed.sql("UPDATE trigger SET kwargs = :sealed", sealed=sealed)
    assert keyed.json("triggers", "show", str(waits))[0]["kwargs"] == {"job": "j2"}
    (keyed.home / KEY_FILE).unlink()
    hidden = keyed.json("triggers", "show", str(waits))[0]["kwargs"]
    assert "there is no encryption key here: put back the one it was written with" in hidden


def test_show_of_a_trigger_in_which_its_task_starts(keyed: Seed, waits: int) -> None:
    """D12: what the row holds is rendered in the runner; the templates are shown, not nothing."""
    start = '{"kwargs": {"paths": ["/in/{{ ds }}.csv"], "token": "t0p"}, "operator": "W"}'
    keyed.sql("UPDATE trigger SET kwargs = '{}', start = :start", start=start)
    (row,) = keyed.json("triggers", "show", str(waits))
    assert row["kwargs"] == {"paths": ["/in/{{ ds }}.csv"], "token": "***"}


def test_load(seed: Seed, waits: int) -> None:
    """D15: what each triggerer runs of all."""
    first = seed.job("triggerer", detail='{"running": 0, "capacity": 4, "queues": ["a", "b"]}')
    seed.job("triggerer")
    seed.sql("UPDATE trigger SET job_id = :job, strikes = 2", job=first)
    rows = seed.json("triggers", "load")
    assert [(row["running"], row["share"], row["free"]) for row in rows] == [
        (1, 1.0, 3), (0, 0.0, None),
    ]  # fmt: skip
    assert rows[0]["queues"] == ["a", "b"]
    assert (rows[0]["struck"], rows[0]["quarantined"]) == (1, 1)
    assert seed.cli("triggers", "load").exit_code == 0


def test_list_by_what_is_asked(seed: Seed, waits: int) -> None:
    job = seed.job("triggerer")
    seed.sql("UPDATE trigger SET job_id = :job", job=job)
    for yes, no in (
        (("--dag-id", "a"), ("--dag-id", "b")),
        (("--lane", "poll"), ("--lane", "timer")),
        (("--triggerer", "here"), ("--triggerer", "there")),
        (("--queue", "default"), ("--queue", "gpu")),
    ):
        assert [row["trigger_id"] for row in seed.json("triggers", "list", *yes)] == [waits]
        assert seed.json("triggers", "list", *no) == []
