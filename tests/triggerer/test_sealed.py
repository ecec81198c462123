"""Triggers whose arguments are encrypted, also with a key that is gone (D22, D4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.support import typedjson
from roost.support.crypto import KEY_FILE, Keyring, new_key
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import World

CODE = """
from roost.dag.trigger import BaseTrigger, TriggerEvent


class Says(BaseTrigger):
    def __init__(self, text, times=1):
        self.text, self.times = text, times

    def serialize(self):
        return ("Says", {"text": self.text, "times": self.times})

    async def run(self):
        yield TriggerEvent(self.text * self.times)

    async def on_kill(self):
        pass
"""
MEBIBYTE = 1 << 20


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", CODE)


@pytest.fixture
def keys(roost_home: Path) -> Keyring:
    return Keyring(file=roost_home / KEY_FILE)


def says(text: str, times: int = 1) -> dict[str, object]:
    return {"cls": "Says", "kwargs": {"text": text, "times": times}}


def encrypt(world: World, trigger_id: int, keys: Keyring) -> None:
    (row,) = world.rows("SELECT kwargs FROM trigger WHERE id = :id", id=trigger_id)
    text = keys.encrypt(row["kwargs"])
    world.rows("UPDATE trigger SET kwargs = :text WHERE id = :id", text=text, id=trigger_id)


def test_a_trigger_under_a_lost_key_fails_alone(
    world: World, daemons: Daemons, keys: Keyring
) -> None:
    """D4: its task is not stranded; who is encrypted well, or was stored plain, goes on."""
    good, lost, plain, garbage = world.defer([says("good"), says("lost"), says("plain"), says("")])
    encrypt(world, good, keys)
    encrypt(world, lost, Keyring(new_key()))
    world.rows("UPDATE trigger SET kwargs = 'gAAAAx' WHERE id = :id", id=garbage)
    daemons.start("triggerer")
    wait_until(lambda: len(world.events()) == 4, what="all events")
    events = world.events()
    assert (events[good]["value"], events[plain]["value"]) == ("good", "plain")
    for one in (lost, garbage):
        assert events[one]["kind"] == "failed"
        assert events[one]["error"].startswith(
            f"the arguments of trigger {one} cannot be decrypted with any key of "
            "security.encryption_key"
        )
    late = world.defer([says("late")])[0]  # the runner is well, and so is the loop
    wait_until(lambda: late in world.events(), what="the next event")


def test_a_watcher_under_a_lost_key_is_named_and_others_go_on(
    world: World, daemons: Daemons
) -> None:
    """D13, D22: no task can fail for it, so the log says why nothing comes of it; once."""
    lost = world.watch("Says", "gAAAAx")
    (good,) = world.defer([says("good")])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: good in world.events(), what="the event of another")
    said = f"trigger {lost} (Says of watcher w of asset a) does not run: the arguments of trigger"
    wait_until(lambda: said in triggerer.output, what="the word of it")
    (late,) = world.defer([says("late")])
    wait_until(lambda: late in world.events(), what="the next event")
    assert triggerer.output.count(said) == 1
    assert world.count("fired_at IS NULL") == 1


def test_d22_an_event_of_a_mebibyte_is_encrypted_and_whole(
    world: World, daemons: Daemons, keys: Keyring
) -> None:
    (one,) = world.defer([says("canary-1", MEBIBYTE // 8 - 1)])
    daemons.start("triggerer")
    wait_until(world.events, what="the event")
    (row,) = world.rows("SELECT payload FROM trigger_event")
    assert row["payload"].startswith("gAAAA")
    assert typedjson.decode(keys.decrypt(row["payload"], "it")) == "canary-1" * (MEBIBYTE // 8 - 1)
    assert world.events()[one]["kind"] == "fired"


def test_d10_a_kill_under_a_lost_key_is_given_up_and_said(
    world: World, daemons: Daemons, keys: Keyring
) -> None:
    for number, ring in ((901, Keyring(new_key())), (902, keys)):
        world.rows(
            "INSERT INTO trigger_kill (id, classpath, source, kwargs, code_hash, fileloc, queue, "
            "dag_id, run_id, task_id, map_index, try_number, created_at, epoch, dispatch_id) "
            "SELECT :id, 'Says', :source, :kwargs, code_hash, fileloc, 'default', 'waits', 'r', "
            "'t', -1, 1, :now, 1, 1 FROM dag_source",
            id=number, source=f"{world.module}:Says", kwargs=ring.encrypt('{"text":"x"}'),
            now=4_000_000_000_000_000,
        )  # fmt: skip
    daemon = daemons.start("triggerer")
    wait_until(lambda: not world.rows("SELECT id FROM trigger_kill"), what="the kills")
    assert "on_kill() is not called: the arguments of trigger 901 cannot be" in daemon.output
    assert daemon.output.count("on_kill() is not called") == 1  # of 901, once


@pytest.mark.parametrize("kind", ["worker", "triggerer"])
def test_without_a_key_a_daemon_refuses_to_start_in_one_line(
    world: World, daemons: Daemons, roost_home: Path, kind: str
) -> None:
    (roost_home / KEY_FILE).unlink()
    refused = daemons.cli(kind, check=False)
    assert refused.returncode == 2
    assert refused.stderr == (
        "roost: there is no encryption key; `roost config init` makes one, or set "
        "security.encryption_key where this runs\n"
    )
