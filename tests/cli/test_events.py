"""``roost events``: send, list, delete; a payload is a secret at rest and in listings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from roost.cli import events as events_cli
from roost.support.clock import SECOND, now_us
from roost.support.config import load_config
from roost.support.crypto import keyring_of
from roost.support.event_tokens import read_token
from tests.cli.seed import Seed, chain


def waits(seed: Seed, key: str, count: int = 1) -> None:
    """Deferred tasks that wait for events of a key."""
    seed.dags(chain("d", *(f"t{n}" for n in range(count))))
    run = seed.run("d", "r")
    for row in seed.sql("SELECT id FROM task_instance WHERE dag_run_id = :run", run=run):
        seed.sql(
            "INSERT INTO trigger (ti_id, dag_run_id, dispatch_id, lane, classpath, source, kwargs, "
            "next_kwargs, code_hash, fileloc, queue, created_at, external_key) VALUES "
            "(:ti, :run, 1, 'external', 'c', 's', '{}', '{}', 'c', 'f', 'q', 0, :key)",
            ti=row.id, run=run, key=key,
        )  # fmt: skip


def test_send_says_that_nobody_waits_and_until_when_it_is_kept(keyed: Seed) -> None:
    sent = keyed.cli("events", "send", "a", "--payload", '{"n": 1}', "--expires-in", "2h")
    assert sent.exit_code == 0
    assert sent.stdout.startswith("event 1 of 'a' is kept until ")
    assert sent.stdout.endswith(": nobody waits for it yet\n")
    kept = keyed.scalar("SELECT expires_at - created_at FROM external_event")
    assert abs(kept - 7200 * SECOND) < SECOND


def test_send_without_a_triggerer_says_so(keyed: Seed) -> None:
    waits(keyed, "a", 2)
    sent = keyed.cli("events", "send", "a", "--expires-in", "1d")
    assert "for 2 waiting: no triggerer is running, `roost triggerer`" in sent.stdout


def test_wait_in_vain_is_exit_code_1(keyed: Seed) -> None:
    assert keyed.cli("events", "send", "a", "--wait", "0.1").exit_code == 1


def test_payload_is_encrypted_at_rest_and_masked(keyed: Seed) -> None:
    keyed.cli("events", "send", "a", "--payload", '{"password": "canary-7351"}')
    assert "canary" not in str(keyed.sql("SELECT * FROM external_event"))
    (row,) = keyed.json("events", "list")
    assert (row["key"], row["woken"], row["taken_at"], row["payload"]) == ("a", 0, None, "***")
    assert "@" in row["sender"]
    (shown,) = json.loads(keyed.cli("events", "list", "--show-payload", "-o", "json").stdout)
    assert json.loads(shown["payload"]) == {"password": "canary-7351"}
    keyed.env["ROOST__SECURITY__ENCRYPTION_KEY"] = "A" * 43 + "="
    unreadable = keyed.cli("events", "list", "--show-payload")
    assert unreadable.exit_code == 0
    assert "event 1 cannot be decrypted" in unreadable.stderr


def test_without_a_key_nothing_is_sent(seed: Seed) -> None:
    refused = seed.cli("events", "send", "a")
    assert refused.exit_code == 2
    assert "there is no encryption key" in refused.stderr
    assert seed.scalar("SELECT count(*) FROM external_event") == 0


def test_payload_from_a_file_or_standard_input(keyed: Seed, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text("[1]")
    for args, given in (
        (["--payload-file", str(file)], None),
        (["--payload-file", "-"], "[2]\n"),
        (["--payload", "-"], "[3]\n"),
        ([], None),
    ):
        assert keyed.cli("events", "send", "a", *args, input=given).exit_code == 0
    rows = json.loads(keyed.cli("events", "list", "--show-payload", "-o", "json").stdout)
    assert [json.loads(row["payload"]) for row in rows] == [None, [3], [2], [1]]


def test_tags_of_a_sender_are_only_what_they_look_like(keyed: Seed) -> None:
    """A payload from outside is plain JSON: the sender cannot make other types of it."""
    text = '{"$roost": "bytes", "value": "AA=="}'
    keyed.cli("events", "send", "a", "--payload", text)
    (row,) = json.loads(keyed.cli("events", "list", "--show-payload", "-o", "json").stdout)
    assert json.loads(row["payload"]) == {"$roost": "dict", "value": json.loads(text)}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["", "--payload", "1"], "has 1 to 250 printable characters, not ''"),
        (["x" * 251], "has 1 to 250 printable characters, not 251: 'xxx"),
        (["a\nb"], "has 1 to 250 printable characters, not 'a\\nb'"),
        (["a\x00b"], "has 1 to 250 printable characters, not 'a\\x00b'"),
        (["a", "--payload", ""], "the payload is empty: leave it out"),
        (["a", "--payload-file", "/nowhere"], "/nowhere cannot be read: No such file"),
        (["a", "--payload", "hello"], "a text is JSON in double quotes"),
        (["roost:run/d/r"], "keys that begin with 'roost:' are Roost's own"),
        (["a", "--payload", "{"], "payload: not JSON"),
        (["a", "--payload", "NaN"], "payload: not JSON"),
        (["a", "--payload", "[" * 40 + "]" * 40], "payload"),
        (["a", "--payload", "[" * 200_000], "payload"),
        (["a", "--payload", '"' + "x" * (1 << 20) + '"'], "payload: 1,048,578 bytes"),
        (["a", "--payload", "1", "--payload-file", "-"], "not both"),
        (["a", "--expires-in", "soon"], "no time such as 90s"),
        (["a", "--expires-in", "0"], "no time such as 90s"),
        (["a", "--expires-in", "367d"], "no time such as 90s"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_sent(keyed: Seed, args: list[str], said: str) -> None:
    refused = keyed.cli("events", "send", *args)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert keyed.scalar("SELECT count(*) FROM external_event") == 0


def test_sent_twice_is_kept_twice_and_says_so(keyed: Seed) -> None:
    """Each wakes its own: the second is no copy of the first, and nobody is in doubt about it."""
    assert keyed.cli("events", "send", "a").stdout.endswith(": nobody waits for it yet\n")
    keyed.cli("events", "send", "b")
    again = keyed.cli("events", "send", "a")
    assert again.stdout.endswith(": nobody waits for it yet; 1 sent earlier is taken first\n")
    assert len(keyed.json("events", "list", "a")) == 2


def test_nothing_is_sent_as_null_by_mistake(keyed: Seed) -> None:
    """A command before the pipe that has failed gives nothing, which is no payload."""
    refused = keyed.cli("events", "send", "a", "--payload", "-", input="")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert keyed.json("events", "list") == []


def test_send_without_a_database(keyed: Seed) -> None:
    """One line that names the database, without its password, and exit code 2."""
    for url in ("postgresql://me:t0p-s3cret@127.0.0.1:1/r", f"sqlite:///{keyed.home}/no/r.db"):
        refused = keyed.cli("events", "send", "a", ROOST__DATABASE__URL=url)
        assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert "metadata database" in refused.stderr
        assert "t0p-s3cret" not in refused.stderr


def test_what_is_stored_is_said_to_be_whatever_comes_then(
    keyed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be sent again, and wake two."""

    def away(*_args: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("it went away"))

    monkeypatch.setattr(events_cli, "_look", away)
    sent = keyed.cli("events", "send", "a")
    assert sent.stdout == "event 1 of 'a' is stored; what became of it is unknown: it went away\n"
    assert sent.exit_code == 0
    assert keyed.cli("events", "send", "a", "--wait", "9s").exit_code == 1
    assert len(keyed.json("events", "list")) == 2


def test_delete_by_id_or_key(keyed: Seed) -> None:
    for key in ("a", "a", "b", "7"):
        keyed.cli("events", "send", key)
    assert keyed.cli("events", "delete", "3").stdout == "1 event deleted\n"
    assert keyed.cli("events", "delete", "a").stdout == "2 events deleted\n"
    assert keyed.cli("events", "delete", "7").stdout == "1 event deleted\n"
    gone = keyed.cli("events", "delete", "a")
    assert gone.exit_code == 2
    assert gone.stderr == "roost: there is no event 'a'; `roost events list` shows them\n"


def test_list_of_one_key(keyed: Seed) -> None:
    for key in ("a", "b", "a"):
        keyed.cli("events", "send", key)
    rows = json.loads(keyed.cli("events", "list", "a", "-o", "json").stdout)
    assert [row["id"] for row in rows] == [3, 1]


def test_list_says_what_became_of_each(keyed: Seed) -> None:
    """Waiting until when, taken, expired but not yet deleted, or only the mark of a used token."""
    for key in ("waits", "woke", "late", "over"):
        keyed.cli("events", "send", key, "--expires-in", "1h")
    keyed.sql("UPDATE external_event SET taken_at = 1, woken = 2 WHERE external_key = 'woke'")
    keyed.sql("UPDATE external_event SET expires_at = 1 WHERE external_key IN ('woke', 'late')")
    keyed.sql("UPDATE external_event SET taken_at = 1, payload = '' WHERE external_key = 'over'")
    rows = keyed.json("events", "list")
    assert [(row["key"], row["state"]) for row in rows] == [
        ("over", "deleted"), ("late", "expired"), ("woke", "taken"), ("waits", "waiting"),
    ]  # fmt: skip
    assert rows[3]["expires_at"] > rows[3]["created_at"]
    late = keyed.json("events", "list", "--state", "expired")
    assert [row["key"] for row in late] == ["late"]


def test_token_is_printed_as_a_url(keyed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"ROOST__TRIGGERER__CALLBACK_URL_BASE": "https://jobs.example.org/roost/"}
    made = keyed.cli("events", "token", "a", "--expires-in", "1h", **base)
    head = "https://jobs.example.org/roost/events/"
    assert made.stdout.startswith(head)
    for name, value in keyed.env.items():
        monkeypatch.setenv(name, value)
    keys = keyring_of(load_config())
    claim = read_token(keys, made.stdout.strip().removeprefix(head), now_us())
    assert claim.key == "a"
    assert abs(claim.expires_at - now_us() - 3600 * SECOND) < 60 * SECOND
    by_port = keyed.cli("events", "token", "a", ROOST__TRIGGERER__CALLBACK_PORT="8100")
    assert by_port.stdout.startswith("http://127.0.0.1:8100/events/")
    nowhere = keyed.cli("events", "token", "a")
    assert nowhere.exit_code == 2
    assert "--bare prints a token without it" in nowhere.stderr
    assert "/" not in keyed.cli("events", "token", "a", "--bare").stdout
