"""``roost triggerer`` as real processes, with real signals, on both databases."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.support.clock import SECOND, from_us, now_us
from roost.support.doorbell import Doorbell
from tests.support.daemons import Daemon, Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import World

CODE = """
import asyncio, os
from pathlib import Path
from roost.dag.trigger import BaseTrigger, TriggerEvent


class Appears(BaseTrigger):
    '''Fires when a file is there; says in another file what it does, and in which process.'''

    def __init__(self, path, log=None):
        self.path, self.log = path, log

    def serialize(self):
        return ("Appears", {"path": self.path})

    def note(self, text):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{text} {os.getpid()}\\n")

    async def run(self):
        self.note("run")
        while not os.path.exists(self.path):
            await asyncio.sleep(0.02)
        yield TriggerEvent({"path": self.path, "pid": os.getpid()})

    async def cleanup(self):
        self.note("cleanup")

    async def on_kill(self):
        self.note("on_kill")


class Environment(BaseTrigger):
    def serialize(self):
        return ("Environment", {})

    async def run(self):
        import sys
        yield TriggerEvent({"names": sorted(os.environ), "text": "\\n".join(os.environ.values()),
                            "modules": sorted(sys.modules)})


class HangsOnce(BaseTrigger):
    '''Blocks the loop for good, but only in the first process it meets.'''

    def __init__(self, mark):
        self.mark = mark

    def serialize(self):
        return ("HangsOnce", {"mark": self.mark})

    async def run(self):
        import time
        if not os.path.exists(self.mark):
            Path(self.mark).touch()
            time.sleep(3600)
        yield TriggerEvent("second life")
"""


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", CODE)


@pytest.fixture
def bell(roost_home: Path) -> Iterator[Doorbell]:
    with Doorbell(roost_home / "run") as made:
        yield made


def appears(path: Path, log: Path | None = None) -> dict[str, object]:
    kwargs = {"path": str(path)} | ({"log": str(log)} if log else {})
    return {"cls": "Appears", "kwargs": kwargs}


def runner_of(daemon: Daemon) -> int:
    """The pid of the daemon's runner, as soon as it has one."""
    return wait_until(lambda: next(iter(daemon.family()), 0), what=f"a runner below {daemon.name}")


def owner(world: World, daemon: Daemon) -> int:
    """The id of the daemon's live job."""
    (row,) = world.rows("SELECT id FROM job WHERE pid = :pid AND ended_at IS NULL", pid=daemon.pid)
    return int(row["id"])


def wait_owned(world: World, count: int, job_id: int) -> None:
    wait_until(
        lambda: world.count(f"job_id = {job_id}") == count, what=f"{count} claims of job {job_id}"
    )


def wait_events(world: World, *numbers: int) -> None:
    wait_until(lambda: set(numbers) <= set(world.events()), what=f"events of {numbers}")


def test_timers_and_poll_triggers_fire(
    world: World, daemons: Daemons, bell: Doorbell, tmp_path: Path
) -> None:
    """N1-N3: both lanes fire durably, and the scheduler's bell is rung; timers need no runner."""
    triggerer = daemons.start("triggerer")
    with bell.listen("scheduler") as heard:
        heard.setblocking(True)
        heard.settimeout(30)
        due = now_us() + SECOND // 2
        (timer,) = world.defer([{"due_at": due}])
        bell.ring("triggerer")
        heard.recv(1)
        assert world.events()[timer]["value"] == from_us(due)
        assert world.events()[timer]["kind"] == "fired"
        assert triggerer.family() == set()

        path = tmp_path / "file"
        (poll,) = world.defer([appears(path)])
        bell.ring("triggerer")
        wait_owned(world, 1, owner(world, triggerer))
        path.touch()
        heard.recv(1)
        assert world.events()[poll]["value"]["path"] == str(path)
        assert world.count("fired_at IS NULL") == 0


def test_failure_is_an_event_with_traceback(world: World, daemons: Daemons) -> None:
    """D5: what a trigger raises is stored for the scheduler, which fails the task with it."""
    (number,) = world.defer([{"cls": "Appears", "kwargs": {"path": None}}])
    daemons.start("triggerer")
    wait_events(world, number)
    event = world.events()[number]
    assert (event["kind"], event["payload"]) == ("failed", None)
    assert "os.path.exists(self.path)" in event["error"]
    assert "TypeError" in event["error"]


def test_runner_sees_no_database(world: World, daemons: Daemons, database_url: str) -> None:
    """D19: triggers run in a process without database URL, driver or SQLAlchemy."""
    (number,) = world.defer([{"cls": "Environment"}])
    daemons.start("triggerer", env={"ROOST__DATABASE__URL": database_url})
    wait_events(world, number)
    seen = world.events()[number]["value"]
    assert "ROOST__DATABASE__URL" not in seen["names"]
    assert "NOTIFY_SOCKET" not in seen["names"]
    assert database_url not in seen["text"]
    assert not {"sqlalchemy", "psycopg", "sqlite3"} & set(seen["modules"])


def test_sigterm_hands_over_at_once(
    world: World, daemons: Daemons, bell: Doorbell, tmp_path: Path
) -> None:
    """D10: a stop frees the claims, lets triggers clean up, kills nothing; a peer takes over."""
    log = tmp_path / "log"
    (number,) = world.defer([appears(tmp_path / "file", log)])
    first = daemons.start("triggerer")
    wait_owned(world, 1, owner(world, first))
    wait_until(lambda: log.exists(), what="the trigger to run")
    job_id = owner(world, first)
    assert first.stop() == 0
    assert world.count("job_id IS NOT NULL") == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["run", "cleanup"]
    (job,) = world.rows("SELECT ended_at FROM job WHERE id = :id", id=job_id)
    assert job["ended_at"] is not None

    second = daemons.start("triggerer")
    wait_owned(world, 1, owner(world, second))
    (tmp_path / "file").touch()
    wait_events(world, number)
    assert world.events()[number]["epoch"] == 2


def test_sigkill_of_triggerer_loses_no_trigger(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """Another triggerer of the host takes over a dead one's triggers without its lease.

    By invariant S3.
    """
    numbers = world.defer([appears(tmp_path / "file") for _ in range(20)])
    first = daemons.start("triggerer")
    wait_owned(world, 20, owner(world, first))
    first.kill()
    second = daemons.start("triggerer")
    wait_owned(world, 20, owner(world, second))
    (tmp_path / "file").touch()
    wait_events(world, *numbers)
    assert {event["epoch"] for event in world.events().values()} == {2}


def test_stopped_triggerer_cannot_write_after_takeover(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """After SIGSTOP, takeover and SIGCONT the stale owner's event is refused; it rejoins.

    By invariant S15.
    """
    log = tmp_path / "log"
    (number,) = world.defer([appears(tmp_path / "file", log)])
    stale = daemons.start("triggerer")
    old_job = owner(world, stale)
    wait_owned(world, 1, old_job)
    old_runner = runner_of(stale)
    stale.signal(signal.SIGSTOP)
    # The lease runs out; its clock is the database's, so let the row say that it has.
    world.rows("UPDATE job SET lease_until = 0 WHERE id = :id", id=old_job)

    peer = daemons.start("triggerer")
    wait_owned(world, 1, owner(world, peer))
    stale.signal(signal.SIGCONT)
    new_job = wait_until(
        lambda: world.rows(
            "SELECT id FROM job WHERE pid = :pid AND ended_at IS NULL", pid=stale.pid
        ),
        what="the stale triggerer to join anew",
    )
    assert new_job[0]["id"] != old_job
    wait_until(lambda: old_runner not in stale.family(), what="the stale runner to be killed")
    peer_runner = runner_of(peer)
    (tmp_path / "file").touch()
    wait_events(world, number)
    event = world.events()[number]
    assert (event["epoch"], event["value"]["pid"]) == (2, peer_runner)


def test_dead_runner_is_replaced_and_its_triggers_resume(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """D19: SIGKILL of the runner: another gets all its triggers, under the same claim."""
    numbers = world.defer([appears(tmp_path / str(index)) for index in range(5)])
    triggerer = daemons.start("triggerer")
    wait_owned(world, 5, owner(world, triggerer))
    old = runner_of(triggerer)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: triggerer.family() - {old}, what="another runner")
    for index in range(5):
        (tmp_path / str(index)).touch()
    wait_events(world, *numbers)
    events = world.events().values()
    assert {event["epoch"] for event in events} == {1}
    assert old not in {event["value"]["pid"] for event in events}


def test_silent_runner_is_killed_and_replaced(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """A runner whose loop hangs is named in the log, killed, and its triggers run elsewhere."""
    hangs, peer = world.defer(
        [
            {"cls": "HangsOnce", "kwargs": {"mark": str(tmp_path / "mark")}},
            appears(tmp_path / "mark"),
        ]
    )
    triggerer = daemons.start("triggerer")
    wait_events(world, hangs, peer)
    assert world.events()[hangs]["value"] == "second life"
    assert f"trigger {hangs} (waits.t{hangs:07} run r) blocks" in triggerer.output
    assert "was killed because it was silent for 5 s" in triggerer.output


def test_trigger_whose_row_vanished_is_cancelled(
    world: World, daemons: Daemons, bell: Doorbell, tmp_path: Path
) -> None:
    """D6: what timed out or was cleared stops running; its neighbour goes on."""
    log = tmp_path / "log"
    gone, stays = world.defer([appears(tmp_path / "a", log), appears(tmp_path / "b")])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: log.exists(), what="the trigger to run")
    world.settle([gone])
    bell.ring("triggerer")
    wait_until(lambda: "cleanup" in log.read_text(), what="the trigger to be cancelled")
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    wait_events(world, stays)
    assert set(world.events()) == {stays}
    assert triggerer.process.poll() is None


def test_two_triggerers_fire_everything_once(
    world: World, daemons: Daemons, bell: Doorbell, tmp_path: Path
) -> None:
    """invariant S3, D17: two triggerers, 2,000 timers and 200 poll triggers, an event each."""
    daemons.start_all("triggerer", "triggerer")
    due = now_us() + 2 * SECOND
    (tmp_path / "file").touch()
    world.defer([{"due_at": due} for _ in range(2000)])
    world.defer([appears(tmp_path / "file") for _ in range(200)])
    bell.ring("triggerer")
    wait_until(lambda: len(world.events()) == 2200, what="2,200 events")
    assert world.count("fired_at IS NULL") == 0


def test_capacity_bounds_the_claims(world: World, daemons: Daemons, tmp_path: Path) -> None:
    """D15: no more than --capacity at once; what fires makes room for the next."""
    numbers = world.defer([appears(tmp_path / str(index)) for index in range(5)])
    triggerer = daemons.start("triggerer", "--capacity", "2")
    wait_owned(world, 2, owner(world, triggerer))
    (tmp_path / "0").touch()
    wait_events(world, numbers[0])
    wait_until(
        lambda: world.count("job_id IS NOT NULL AND fired_at IS NULL") == 2, what="the next claim"
    )
    for index in range(1, 5):
        (tmp_path / str(index)).touch()
    wait_events(world, *numbers)


def test_runner_that_hangs_does_not_outlive_its_supervisor(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """The runner ends after a crash of its supervisor even if a trigger blocks its loop."""
    world.defer([{"cls": "HangsOnce", "kwargs": {"mark": str(tmp_path / "mark")}}])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: (tmp_path / "mark").exists(), what="the trigger to hang")
    runner = os.pidfd_open(runner_of(triggerer))
    triggerer.kill()
    try:
        assert select.select([runner], [], [], 30)[0]
    finally:
        os.close(runner)


def test_lost_connections_lose_no_trigger(
    world: World, daemons: Daemons, bell: Doorbell, tmp_path: Path
) -> None:
    """The server ends every connection: the triggerer stays, and its triggers fire."""
    if world.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no server")
    numbers = world.defer([appears(tmp_path / "file") for _ in range(5)])
    triggerer = daemons.start("triggerer")
    wait_owned(world, 5, owner(world, triggerer))
    world.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    (tmp_path / "file").touch()
    numbers += world.defer([{"due_at": now_us()}])
    bell.ring("triggerer")
    wait_events(world, *numbers)
    assert triggerer.process.poll() is None


def test_second_signal_ends_it_at_once(world: World, daemons: Daemons, tmp_path: Path) -> None:
    """A second SIGTERM does not wait for anybody."""
    world.defer([{"cls": "HangsOnce", "kwargs": {"mark": str(tmp_path / "mark")}}])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: (tmp_path / "mark").exists(), what="the trigger to hang")
    triggerer.signal(signal.SIGTERM)
    triggerer.wait_notified("STOPPING=1")
    triggerer.signal(signal.SIGTERM)
    assert triggerer.wait(5) != 0
