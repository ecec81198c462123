"""Events from outside with real triggerers and senders, and what crashes leave of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.support.crypto import KEY_FILE, create_key_file
from roost.support.doorbell import Doorbell
from tests.support.daemons import ROOST, Daemons, clean_environment
from tests.support.waiting import wait_until
from tests.triggerer.test_external import waits
from tests.triggerer.world import World


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", "")


@pytest.fixture
def bell(roost_home: Path) -> Iterator[Doorbell]:
    with Doorbell(roost_home / "run") as made:
        yield made


def send(home: Path, *args: str) -> str:
    """What ``roost events send`` says."""
    done = subprocess.run(
        [ROOST, "events", "send", *args],
        env=clean_environment(home),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def wait_events(world: World, *numbers: int) -> None:
    wait_until(lambda: set(numbers) <= set(world.events()), what=f"events of {numbers}")


def test_sent_event_wakes_and_the_sender_is_told(
    world: World, daemons: Daemons, roost_home: Path
) -> None:
    """N1-N3: no runner is started, and nothing is deferred in memory."""
    triggerer = daemons.start("triggerer")
    first, second = world.defer([waits("a"), waits("a")])
    said = send(roost_home, "a", "--payload", '{"rows": 42}')
    assert said == "event 1 of 'a' woke 2 waiting tasks\n"
    assert world.events()[first]["value"] == world.events()[second]["value"] == {"rows": 42}
    assert triggerer.family() == set()


def test_kept_event_meets_the_task_that_waits_later(
    world: World, daemons: Daemons, bell: Doorbell, roost_home: Path
) -> None:
    daemons.start("triggerer")
    assert "nobody waits for it yet" in send(roost_home, "a", "--payload", "7")
    (number,) = world.defer([waits("a")])
    bell.ring("triggerer")
    wait_events(world, number)
    assert world.events()[number]["value"] == 7


def test_two_triggerers_match_the_same_events(
    world: World, daemons: Daemons, bell: Doorbell, roost_home: Path
) -> None:
    """invariant S3, D17: each waiting task is woken once, each event taken once."""
    daemons.start_all("triggerer", "triggerer")
    numbers = world.defer([waits(f"k{number % 20}") for number in range(200)])
    senders = [
        subprocess.Popen([ROOST, "events", "send", f"k{n}"], env=clean_environment(roost_home))
        for n in range(6)
    ]
    assert [sender.wait() for sender in senders] == [0] * 6
    expected = [number for index, number in enumerate(numbers) if index % 20 < 6]
    wait_events(world, *expected)
    assert sorted(world.events()) == sorted(expected)
    assert {row["woken"] for row in world.rows("SELECT woken FROM external_event")} == {10}


def test_killed_triggerer_loses_no_event(world: World, daemons: Daemons, roost_home: Path) -> None:
    """SIGKILL before it has looked: the event is a row, and the next triggerer matches it."""
    first = daemons.start("triggerer")
    first.kill()
    (number,) = world.defer([waits("a")])
    assert "no triggerer is running" in send(roost_home, "a", "--payload", "1")
    assert world.events() == {}
    daemons.start("triggerer")
    wait_events(world, number)
    (event,) = world.rows("SELECT woken, taken_at FROM external_event")
    assert event["woken"] == 1
    assert event["taken_at"] is not None


def test_triggerer_killed_in_the_middle_of_a_match_has_done_nothing(
    world: World, daemons: Daemons, roost_home: Path, database_kind: str
) -> None:
    """SIGKILL while it holds the event and waits for a task's row: the next one does it, once."""
    if database_kind == "sqlite":
        pytest.skip("SQLite has one writer: there is nothing to wait for in the middle")
    first = daemons.start("triggerer")
    numbers = world.defer([waits("a") for _ in range(3)])
    with world.engine.connect() as other:
        transaction = other.begin()
        other.exec_driver_sql(f"DELETE FROM trigger WHERE id = {numbers[1]}")  # noqa: S608
        send(roost_home, "a")
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: world.rows(blocked)[0]["count"], what="the match to wait")
        first.kill()
        transaction.rollback()
    daemons.start("triggerer")
    wait_events(world, *numbers)
    assert world.rows("SELECT woken FROM external_event") == [{"woken": 3}]


def test_killed_sender_has_sent_all_or_nothing(
    world: World, daemons: Daemons, roost_home: Path
) -> None:
    """SIGKILL of the sender after its commit, before it rings: a poll interval later it is seen."""
    (number,) = world.defer([waits("a")])
    sender = subprocess.Popen(
        [ROOST, "events", "send", "a", "--wait", "1h"], env=clean_environment(roost_home)
    )
    wait_until(lambda: world.rows("SELECT id FROM external_event"), what="the event")
    sender.kill()
    sender.wait()
    daemons.start("triggerer")
    wait_events(world, number)


def test_event_that_cannot_be_read_is_kept_and_told(
    world: World, daemons: Daemons, roost_home: Path
) -> None:
    """A triggerer without the right key harms nothing; one that has it goes on."""
    (bad, good) = world.defer([waits("a"), waits("b")])
    send(roost_home, "a", "--payload", "1")
    (roost_home / KEY_FILE).rename(roost_home / "away")
    assert create_key_file(roost_home / KEY_FILE)
    send(roost_home, "b", "--payload", "2")
    triggerer = daemons.start("triggerer")
    wait_events(world, good)
    wait_until(lambda: "event 1 cannot be decrypted" in triggerer.output, what="the error line")
    assert bad not in world.events()
    both = (roost_home / "away").read_text() + (roost_home / KEY_FILE).read_text()
    (roost_home / KEY_FILE).write_text(both)
    send(roost_home, "c")
    wait_events(world, bad)
