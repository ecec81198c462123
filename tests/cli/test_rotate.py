"""``roost rotate-encryption-key``: every secret under the newest key, also after a kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import msgspec
import pytest

from roost.support.crypto import Keyring, new_key
from roost.support.sealed import as_raw, merged, opened, text_of
from roost.support.wire import DeferSpec, Outcome
from tests.cli.seed import Seed, chain

OLD, NEW = new_key(), new_key()


@pytest.fixture
def filled(seed: Seed) -> Seed:
    """Secrets under the old key, one that was stored plain, and both keys in the environment."""
    seed.env["ROOST__SECURITY__ENCRYPTION_KEY"] = OLD
    for number in range(7):
        seed.cli("variables", "set", f"v{number}", f"value {number}")
    seed.cli("connections", "add", "wh", "--conn-uri", "pg://u:p@h?k=v")
    seed.cli("connections", "add", "empty", "--conn-type", "http")
    seed.sql("INSERT INTO variable (key, value) VALUES ('plain', 'old')")
    seed.sql("INSERT INTO connection (conn_id, password) VALUES ('plain', 'old')")
    seed.env["ROOST__SECURITY__ENCRYPTION_KEY"] = f"{NEW},{OLD}"
    return seed


def tokens(seed: Seed) -> list[str]:
    found = seed.sql(
        "SELECT value FROM variable UNION ALL SELECT password FROM connection "
        "UNION ALL SELECT extra FROM connection"
    )
    return [row[0] for row in found if row[0] is not None]


def assert_rotated(seed: Seed) -> None:
    ring = Keyring(NEW)
    assert [ring.decrypt(token, "it") for token in tokens(seed)]
    seed.env["ROOST__SECURITY__ENCRYPTION_KEY"] = NEW
    values = {row["key"]: row["value"] for row in seed.json("variables", "list")}
    assert values == {**{f"v{n}": f"value {n}" for n in range(7)}, "plain": "old"}
    connections = {
        row["conn_id"]: (row["password"], row["extra"])
        for row in seed.json("connections", "list", "--show-secrets")
    }
    assert connections == {"wh": ("p", '{"k": "v"}'), "empty": (None, None), "plain": ("old", None)}


def test_everything_is_encrypted_anew_once(filled: Seed) -> None:
    before = tokens(filled)
    tried = filled.cli("rotate-encryption-key", "--dry-run")
    assert tried.stdout == (
        "Variables: 8 would be encrypted anew, 0 under the newest key already\n"
        "Connections: 2 would be encrypted anew, 1 under the newest key already\n"
    )
    assert tokens(filled) == before
    done = filled.cli("rotate-encryption-key", "--batch", "3")
    assert done.stdout == (
        "Variables: 8 encrypted anew, 0 under the newest key already\n"
        "Connections: 2 encrypted anew, 1 under the newest key already\n"
    )
    assert done.stderr == "Variables: 3 of 8\nVariables: 6 of 8\n"
    after = tokens(filled)
    again = filled.cli("rotate-fernet-key")
    assert again.stdout == (
        "Variables: 0 encrypted anew, 8 under the newest key already\n"
        "Connections: 0 encrypted anew, 3 under the newest key already\n"
    )
    assert tokens(filled) == after
    assert_rotated(filled)


def test_it_goes_on_after_a_kill(filled: Seed) -> None:
    """SIGKILL between two batches: some rows are new, all are readable, the next one finishes."""
    code = (
        "import os, signal\n"
        "from roost.cli import rotate\n"
        "whole, batches = rotate.transact, []\n"
        "def transact(*args):\n"
        "    batches.append(1)\n"
        "    if len(batches) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return whole(*args)\n"
        "rotate.transact = transact\n"
        "rotate.rotate_encryption_key(['--batch', '2'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **filled.env})
    assert done.returncode == -signal.SIGKILL
    new = [token for token in tokens(filled) if is_new(token)]
    assert len(new) == 4
    assert len(filled.json("variables", "list")) == 8
    finished = filled.cli("rotate-encryption-key")
    assert finished.stdout.startswith("Variables: 4 encrypted anew, 4 under the newest key already")
    assert_rotated(filled)


def is_new(token: str) -> bool:
    return Keyring(NEW).is_newest(token)


def test_a_row_that_no_key_decrypts_is_named_and_left(filled: Seed) -> None:
    lost = Keyring(new_key()).encrypt("x")
    filled.sql("UPDATE variable SET value = :lost WHERE key = 'v3'", lost=lost)
    done = filled.cli("rotate-encryption-key")
    assert done.exit_code == 2
    named, last = done.stderr.splitlines()
    assert named.startswith("Variable 'v3' cannot be decrypted")
    assert last.startswith("roost: 1 of the rows cannot be decrypted")
    assert "Variables: 7 encrypted anew" in done.stdout
    assert filled.scalar("SELECT value FROM variable WHERE key = 'v3'") == lost


def test_without_a_key_nothing_is_rotated(seed: Seed) -> None:
    refused = seed.cli("rotate-encryption-key")
    assert refused.exit_code == 2
    assert "there is no encryption key" in refused.stderr


def test_events_from_outside_are_encrypted_anew_too(filled: Seed) -> None:
    """Those that are kept: a task may wait for one long after the old key has gone."""
    filled.env["ROOST__SECURITY__ENCRYPTION_KEY"] = OLD
    filled.cli("events", "send", "a", "--payload", '"secret"')
    filled.sql(
        "INSERT INTO external_event (external_key, payload, sender, created_at, expires_at, "
        "taken_at) VALUES ('used', '', 's', 0, 9000000000000000, 1)"
    )
    filled.env["ROOST__SECURITY__ENCRYPTION_KEY"] = f"{NEW},{OLD}"
    done = filled.cli("rotate-encryption-key")
    assert done.exit_code == 0
    assert "Events: 1 encrypted anew, 0 under the newest key already\n" in done.stdout
    filled.env["ROOST__SECURITY__ENCRYPTION_KEY"] = NEW
    shown = filled.cli("events", "list", "a", "--show-payload", "-o", "json")
    assert '"secret"' in shown.stdout.replace("\\", "")


def test_d22_what_tasks_on_the_way_left_is_encrypted_anew_too(filled: Seed) -> None:
    """Wherever it is: in an unsettled outcome, a trigger, its event, or what is to be resumed."""
    old, new = Keyring(OLD), Keyring(NEW)
    filled.dags(chain("d", "a", "b"))
    run = filled.run("d", "r")
    pair = merged(old.encrypt('{"k":1}'), old.encrypt('"e"'))
    a = filled.instance(run, "a", next_kwargs=pair)
    b = filled.instance(run, "b", next_kwargs='{"plain":1}')
    defer = DeferSpec(
        "poll", "T", "m:T", as_raw(old.encrypt('{"k":1}')), "done", as_raw(old.encrypt('{"n":1}'))
    )
    outcome = msgspec.json.encode(Outcome("deferred", 1, 2, defer=defer, xcoms=[])).decode()
    for number, settled in ((1, False), (2, True)):
        filled.dispatch(a, run, number=number)
        filled.sql(
            "UPDATE dispatch SET job_id = 1, claimed_at = 1, ended_at = 2, outcome = :text, "
            "settled = :settled WHERE id = :id",
            text=outcome, settled=settled, id=number,
        )  # fmt: skip
    waits = filled.trigger(a, run, kwargs=old.encrypt('{"k":2}'), next_kwargs="{}")
    plain = filled.trigger(b, run, kwargs='{"moment":1}', next_kwargs=old.encrypt('{"n":2}'))
    filled.sql(
        "INSERT INTO trigger_event (trigger_id, epoch, kind, payload, created_at) "
        "VALUES (:id, 1, 'fired', :payload, 0)",
        id=waits, payload=old.encrypt('"e"'),
    )  # fmt: skip
    filled.sql(
        "INSERT INTO trigger_kill (id, classpath, source, kwargs, code_hash, fileloc, queue, "
        "dag_id, run_id, task_id, map_index, try_number, created_at, epoch, dispatch_id) VALUES "
        "(99, 'T', 'm:T', :kwargs, 'h', 'f', 'q', 'd', 'r', 'a', -1, 1, 0, 1, 1)",
        kwargs=old.encrypt('{"k":3}'),
    )
    done = filled.cli("rotate-encryption-key", "--batch", "1")
    assert done.exit_code == 0, done.stderr
    for line in (
        "Deferrals: 1 encrypted anew, 0 ", "Triggers: 2 encrypted anew, 0 ",
        "Kills: 1 encrypted anew, 0 ", "Trigger events: 1 encrypted anew, 0 ",
        "Resumed tasks: 1 encrypted anew, 1 ",
    ):  # fmt: skip
        assert line in done.stdout

    def opens(text: str) -> str:
        return opened(text, lambda one: new.unseal(one, "it"))

    text = filled.scalar("SELECT outcome FROM dispatch WHERE id = 1")
    left = msgspec.json.decode(text, type=Outcome).defer
    assert left is not None
    assert (opens(text_of(left.kwargs)), opens(text_of(left.next_kwargs))) == ('{"k":1}', '{"n":1}')
    assert [
        (opens(kwargs), opens(next_kwargs))
        for kwargs, next_kwargs in filled.sql("SELECT kwargs, next_kwargs FROM trigger ORDER BY id")
    ] == [('{"k":2}', "{}"), ('{"moment":1}', '{"n":2}')]
    assert plain > waits
    assert opens(filled.scalar("SELECT payload FROM trigger_event")) == '"e"'
    assert opens(filled.scalar("SELECT kwargs FROM trigger_kill")) == '{"k":3}'
    found = [
        opens(row[0]) for row in filled.sql("SELECT next_kwargs FROM task_instance ORDER BY id")
    ]
    assert found == ['{"k":1,"event":"e"}', '{"plain":1}']
    again = filled.cli("rotate-encryption-key")
    assert ": 0 encrypted anew" in again.stdout
    assert not re.search(r": [1-9]\d* encrypted anew", again.stdout)
