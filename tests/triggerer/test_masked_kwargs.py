"""What a trigger was given under a sensitive name is hidden in all that it says (invariant S19)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.support.masking import is_active, mask_also, secrets_in
from roost.triggerer.messages import Words
from tests.triggerer.runner_process import RunnerProcess

CANARY = "canary/of=the gold"
CODE = """
import logging
from roost.triggers import BaseTrigger, PooledTrigger, TaskFailedEvent, TriggerEvent

class Tells(BaseTrigger):
    def __init__(self, api_token, auth):
        self.api_token, self.auth = api_token, auth

    def serialize(self):
        return "Tells", {"api_token": self.api_token, "auth": self.auth}

    async def run(self):
        from urllib.parse import quote
        print("printed", self.api_token)
        logging.getLogger("mine").warning("logged %s", quote(self.api_token, safe=""))
        raise ValueError(f"no way in with {self.auth['password']} or {self.api_token!r}")
        yield

class InInit(Tells):
    def __init__(self, **given):
        raise ValueError(f"bad {given}")

class Ends(Tells):
    async def run(self):
        yield TaskFailedEvent(reason=f"refused with {self.api_token}")

class Asks(PooledTrigger, Tells):
    def poll_key(self):
        return "one"

    @classmethod
    async def poll_many(cls, triggers):
        return {key: ValueError(f"{one.api_token}") for key, one in triggers.items()}

    poll_retries = 0
"""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    process = RunnerProcess(tmp_path, CODE)
    yield process
    process.close()


@pytest.mark.parametrize("cls", ["Tells", "InInit", "Ends", "Asks"])
def test_invariant_s19_secrets_in_kwargs_are_hidden(runner: RunnerProcess, cls: str) -> None:
    runner.start(1, cls, api_token=CANARY, auth={"password": "the-second-canary"})
    error = runner.wait_reports(1)[1].error or ""
    words = [one.said for one in runner.messages if isinstance(one, Words)]
    text = error + runner.output + "".join(said.text for batch in words for said in batch)
    assert "***" in error
    if cls == "Tells":
        assert "printed ***" in text
        assert "logged ***" in text
    assert "canary" not in text
    assert "gold" not in text


def test_secrets_that_are_hidden_once_are_not_remembered() -> None:
    """Thousands of triggers may each have a token of their own."""
    secrets = list(secrets_in({"token": "abcdef", "n": {"password": "ghijkl"}, "url": "x" * 9}, ""))
    assert secrets == ["abcdef", "ghijkl"]
    before = is_active()
    assert mask_also("abcdef, ghijkl, xxxxxxxxx", secrets) == "***, ***, xxxxxxxxx"
    assert is_active() == before
