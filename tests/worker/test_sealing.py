"""What tasks defer with is encrypted by the worker, and decrypted for who resumes (D22)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from roost.dag.operator import BaseOperator
from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.support.crypto import Keyring, create_key_file, new_key
from roost.support.sealed import is_sealed, merged, text_of
from roost.support.wire import Outcome
from roost.triggers import DateTimeTrigger, ExternalTrigger
from tests.dag.case import a_dag
from tests.support.databases import fetch
from tests.worker.house import House


class Job(BaseTrigger):
    def __init__(self, token: str) -> None:
        self.token = token

    def serialize(self) -> tuple[str, dict[str, str]]:
        return "Job", {"token": self.token}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent()


class Waits(BaseOperator):
    def __init__(self, trigger: BaseTrigger, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.trigger = trigger

    def execute(self, context: object) -> None:
        self.defer(trigger=self.trigger, method_name="done", kwargs={"secret": "canary"})

    def done(self, context: object, secret: str, event: object = None) -> object:
        return [secret, event]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    create_key_file(tmp_path / "encryption.key")
    return tmp_path / "encryption.key"


@pytest.fixture
def house(database_url: str, key: Path) -> Iterator[House]:
    made = House(database_url)
    made.keys = made.ledger._keys = Keyring(file=key)
    yield made
    made.close()


def defer(house: House, trigger: BaseTrigger) -> Outcome:
    """The outcome as the scheduler finds it."""
    with a_dag("d"):
        task = Waits(trigger, task_id="a")
    house.run("a", task)
    (row,) = fetch(house.url, "SELECT outcome FROM dispatch")
    return msgspec.json.decode(row["outcome"], type=Outcome)


def resumed(house: House, next_kwargs: str) -> tuple[object, str | None]:
    """What the method is given, or why it is not called."""
    fetch(
        house.url,
        "UPDATE task_instance SET state = 'queued', next_method = 'done', next_kwargs = :text",
        text=next_kwargs,
    )
    fetch(house.url, "UPDATE dispatch SET job_id = NULL, claimed_at = NULL, ended_at = NULL, "
          "outcome = NULL")  # fmt: skip
    (start,) = house.ledger.claim(10)
    return msgspec.json.decode(start.spec.next_kwargs), start.spec.trigger_error


def test_d22_the_outcome_holds_no_argument_in_the_clear(house: House) -> None:
    spec = defer(house, Job("canary")).defer
    assert spec is not None
    kwargs, next_kwargs = text_of(spec.kwargs), text_of(spec.next_kwargs)
    assert house.keys.decrypt(kwargs, "it") == '{"token":"canary"}'
    assert house.keys.decrypt(next_kwargs, "it") == '{"secret":"canary"}'


@pytest.mark.parametrize(
    "trigger", [DateTimeTrigger(datetime(2026, 1, 1, tzinfo=UTC)), ExternalTrigger("key")]
)
def test_d22_what_waits_as_a_row_is_plain_but_not_what_it_comes_back_with(
    house: House, trigger: BaseTrigger
) -> None:
    spec = defer(house, trigger).defer
    assert spec is not None
    assert not is_sealed(text_of(spec.kwargs))
    assert is_sealed(text_of(spec.next_kwargs))


def test_d3_the_method_is_given_what_was_encrypted(house: House) -> None:
    defer(house, Job("x"))
    seal = house.keys.seal
    stored = merged(seal('{"secret":"s"}'), seal('{"n":1}'))
    assert resumed(house, stored) == ({"secret": "s", "event": {"n": 1}}, None)


def test_what_was_stored_plain_is_read_as_it_is(house: House) -> None:
    """Of a wait that began before everything was encrypted."""
    defer(house, Job("x"))
    assert resumed(house, '{"secret":"s","event":1}') == ({"secret": "s", "event": 1}, None)
    mixed = merged('{"secret":"s"}', house.keys.seal("1"))
    assert resumed(house, mixed) == ({"secret": "s", "event": 1}, None)


@pytest.mark.parametrize("text", [
    merged(Keyring(new_key()).encrypt('{"a":1}'), "null"), "gAAAAx", "sealed:[", 'sealed:["{}"]',
])  # fmt: skip
def test_d4_what_cannot_be_read_fails_the_task_with_the_reason(house: House, text: str) -> None:
    """And does not keep the worker from the next one."""
    defer(house, Job("x"))
    given, error = resumed(house, text)
    assert given == {}
    assert error is not None
    assert error.startswith("what task 'a' is resumed with cannot be read: ")
    assert house.seen(lambda context: "well") == "well"


def test_d22_without_a_key_the_task_fails_and_nothing_is_stored_in_the_clear(
    house: House, key: Path
) -> None:
    """The key went away after the worker had started."""
    key.unlink()
    outcome = defer(house, Job("canary"))
    assert (outcome.kind, outcome.defer) == ("failed", None)
    assert outcome.error is not None
    assert "cannot be encrypted: there is no encryption key; `roost config init`" in outcome.error
    assert "canary" not in msgspec.json.encode(outcome).decode()
