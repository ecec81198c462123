"""``callback_url``: what a task asks its supervisor, and what is hidden of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from roost.dag import DAG, task
from roost.exceptions import RoostException
from roost.support import masking
from roost.support.clock import SECOND
from roost.support.task_requests import CallbackUrl
from roost.triggers import ExternalTrigger, callback_url
from tests.dag.case import FakeSupervisor, run

URL = "https://roost.example/events/TOKEN-7351"


@pytest.fixture(autouse=True)
def nothing_hidden() -> Iterator[None]:
    yield
    masking.forget()


def test_a_task_gets_a_url_that_its_log_does_not_show() -> None:
    """From the function or the context; the token alone is masked."""
    seen: list[Any] = []

    with DAG("d", schedule=None):

        @task
        def job(callback_url: Any) -> None:
            seen.append(callback_url("a/1"))
            seen.append(callback_url("b", timedelta(hours=1)))
            seen.append(callback_url("b", expires_in=90))

        operator = job().operator
    supervisor = FakeSupervisor("job")
    outcome, _ = run(operator, supervisor)
    assert outcome.kind == "success", outcome.error
    assert seen == [URL] * 3
    asked = [request for request in supervisor.asked if isinstance(request, CallbackUrl)]
    hour = 3600 * SECOND
    assert asked == [
        CallbackUrl("a/1", 24 * hour), CallbackUrl("b", hour), CallbackUrl("b", 90 * SECOND),
    ]  # fmt: skip
    assert masking.mask(URL) == "https://roost.example/events/***"


def test_outside_a_task_there_is_none() -> None:
    with pytest.raises(RoostException, match="running task"):
        callback_url("a")


@pytest.mark.parametrize("key", ["", "x" * 251, "a\n", "roost:run/d", 7, None])
def test_keys_that_cannot_be(key: Any) -> None:
    for made in (ExternalTrigger, callback_url):
        with pytest.raises(RoostException, match=r"printable characters|Roost's own"):
            made(key)


def test_the_trigger_is_made_again_from_what_it_serializes() -> None:
    """D8."""
    path, kwargs = ExternalTrigger("a").serialize()
    assert path == "roost.triggers.ExternalTrigger"
    assert ExternalTrigger(**kwargs).external_key == "a"
