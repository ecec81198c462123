"""HttpTrigger and HttpRequestTrigger against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from roost.exceptions import RoostException
from roost.support import jsonpath, typedjson
from roost.support.trigger_wire import TriggerReport, TriggerSpec
from roost.triggerer.case import Case
from roost.triggerer.pooled import Pool
from roost.triggers import HttpRequestTrigger, HttpTrigger
from roost.triggers.http_client import LONGEST_ANSWER, _Client
from tests.operators.test_http import Server
from tests.triggerer.virtual_loop import run_virtually
from tests.triggers.case import fired, remade, until, waiting


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server("HTTP/1.1")
    monkeypatch.setenv("ROOST_CONN_API", f"http://me:pass-word@127.0.0.1:{made.port}")
    yield made
    made.close()


def trigger(endpoint: str = "x", **arguments: Any) -> HttpTrigger:
    return HttpTrigger(endpoint, "api", **{"poll_interval": 0.02, **arguments})


def test_it_fires_on_a_good_answer(server: Server) -> None:
    """404 means "not yet"; the request is that of HttpHook, with the connection's login."""
    answers = iter([(404, ""), (404, ""), (200, "there")])
    server.answer = lambda _server, _path: next(answers)
    found = fired(trigger("a/b", params={"q": 1}, headers={"X-Own": "1"}))
    assert found == {"status": 200, "found": "there", "judgement": "success"}
    assert [one["path"] for one in server.seen] == ["/a/b?q=1"] * 3
    headers = server.seen[0]["headers"]
    assert headers["authorization"].startswith("Basic ")
    assert headers["x-own"] == "1"
    assert server.connections == 1  # kept open from one poll to the next


def test_a_place_in_the_answer(server: Server) -> None:
    states = iter(["[]", '{"jobs": [{"state": "running"}]}', '{"jobs": [{"state": "done"}]}'])
    server.answer = lambda _server, _path: (200, next(states))
    wanted: dict[str, Any] = {"json_path": "$.jobs[0].state", "success_values": ["done", "gone"]}
    assert fired(trigger(**wanted))["found"] == "done"
    server.answer = lambda _server, _path: (200, '{"jobs": [{"state": "failed"}]}')
    found = fired(trigger(**wanted, failure_values=["failed"]))
    assert found == {"status": 200, "found": "failed", "judgement": "failed"}


def test_a_body_and_statuses_of_ones_own(server: Server) -> None:
    answers = iter([(200, ""), (202, "ok")])
    server.answer = lambda _server, _path: next(answers)
    wanted = trigger(method="post", json={"a": [1]}, status=[202], not_yet=[200])
    assert fired(wanted)["status"] == 202
    assert [json.loads(one["body"]) for one in server.seen] == [{"a": [1]}] * 2


@pytest.mark.parametrize(
    ("answer", "arguments", "message"),
    [
        ((403, "who are you"), {}, "GET http://127.0.0.1:.*/x: 403 Forbidden: who are you"),
        ((200, "<html>"), {"json_path": "a"}, "the answer is not JSON"),
        ((200, "x" * (LONGEST_ANSWER + 1)), {}, "longer than 1,000,000 bytes"),
        ((200, ""), {"http_conn_id": "nowhere"}, "Connection 'nowhere': the database can only"),
        ((200, ""), {"extra_options": {"cookies": 1}}, "unknown option 'cookies'"),
        ((200, ""), {"endpoint": "ftp://x"}, "ftp://"),
    ],
    ids=["status", "no JSON", "too long", "no connection", "option", "url"],
)
def test_what_is_no_passing_trouble_fails_at_once(
    server: Server, answer: tuple[int, str], arguments: dict[str, Any], message: str
) -> None:
    server.answer = lambda _server, _path: answer
    fields = {"endpoint": "x", "http_conn_id": "api", "poll_interval": 0.02, **arguments}

    async def main() -> None:
        async with waiting(HttpTrigger(**fields)) as (one,):
            await one.payload()

    with pytest.raises(RoostException, match=message):
        asyncio.run(main())


def test_a_server_that_is_down_for_a_while_is_forgiven(server: Server) -> None:
    """500 and up, and 429, are tried again; without end they fail with what the server said."""
    answers = iter([(500, "a"), (429, "b"), (503, "c"), (200, "back")])
    server.answer = lambda _server, _path: next(answers)
    assert fired(trigger())["found"] == "back"
    server.answer = lambda _server, _path: (502, "bad gateway")
    with pytest.raises(OSError, match="502 Bad Gateway: bad gateway"):
        fired(trigger())


def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_CONN_API", "http://127.0.0.1:1")
    with pytest.raises(OSError, match=r"GET http://127.0.0.1:1/x: All connection attempts failed"):
        fired(trigger())


class Hall:
    """Triggers in a pool, as in a runner."""

    def __init__(self) -> None:
        self.reports: dict[int, TriggerReport] = {}
        self.pool = Pool(self._report, lambda case: None)

    def _report(self, report: TriggerReport) -> None:
        self.reports[report.trigger_id] = report

    def add(self, number: int, wanted: HttpTrigger) -> None:
        spec = TriggerSpec(
            number, 1, "t", "t", msgspec.Raw(b"{}"), "h", "f", "d", "r", f"t{number}", -1, 1
        )
        made = remade(wanted)
        assert isinstance(made, HttpTrigger)
        self.pool.take(Case(spec, {}), made)


def test_a_thousand_tasks_on_ten_addresses_are_ten_requests(server: Server) -> None:
    """Each address is asked once an interval for all who wait for it, over a few connections; a
    request that differs only in what it waits for is sent once, too."""
    server.answer = lambda _server, path: (200, '{"state": "running"}')
    wanted: dict[str, Any] = {"json_path": "state", "poll_interval": 0.2}
    polls = 5

    async def main() -> None:
        hall = Hall()
        for number in range(1_000):
            values = ["done"] if number < 500 else ["done", "failed"]
            hall.add(number, trigger(f"job/{number % 10}", success_values=values, **wanted))
        await until(lambda: len(server.seen) >= 10 * polls)
        sent, asked = len(server.seen), hall.pool.polls
        assert sent <= 10 * asked  # asking for each trigger: 1,000 times as often as polled
        assert server.connections <= 20
        assert {one["path"] for one in server.seen[-10:]} == {f"/job/{n}" for n in range(10)}
        assert not hall.reports
        server.answer = lambda _server, path: (
            200, '{"state": "done"}' if path == "/job/3" else '{"state": "failed"}',
        )  # fmt: skip
        await until(lambda: len(hall.reports) == 550)
        assert {n for n in hall.reports if n < 500} == set(range(3, 500, 10))
        found: Any = typedjson.decode(hall.reports[503].payload)
        assert found["found"] == "done"
        for seats in [group._seats for group in hall.pool.groups.values()]:
            for seat in list(seats.values()):
                for case in list(seat.cases.values()):
                    hall.pool.drop(case)

    asyncio.run(main())


def test_one_address_that_fails_does_not_fail_the_others(server: Server) -> None:
    server.answer = lambda _server, path: (200, "ok") if path == "/good" else (403, "no")

    async def main() -> None:
        hall = Hall()
        hall.add(1, trigger("good"))
        hall.add(2, trigger("bad"))
        await until(lambda: len(hall.reports) == 2)
        assert hall.reports[1].kind == "fired"
        assert "403 Forbidden: no" in (hall.reports[2].error or "")

    asyncio.run(main())


def test_requests_keep_to_max_rate() -> None:
    import httpx

    async def main() -> None:
        client = _Client(httpx, {"max_rate": 4})
        loop = asyncio.get_running_loop()
        turns = []
        for _ in range(9):
            await client._await_turn()
            turns.append(loop.time())
        assert turns == pytest.approx([number / 4 for number in range(9)])
        await client.close()

    run_virtually(main())


def test_one_request_with_its_whole_answer(server: Server) -> None:
    """It is sent once, whatever it comes to: the task judges it."""
    server.answer = lambda _server, _path: (404, "nö")
    found = fired(HttpRequestTrigger("x", "api", "post", data={"a": 1}, headers={"X-Own": "2"}))
    assert (found["status"], found["reason"], found["body"]) == (404, "Not Found", "nö".encode())
    assert (found["method"], found["url"]) == ("POST", f"http://127.0.0.1:{server.port}/x")
    assert server.seen[0]["body"] == "a=1"
    server.answer = lambda _server, _path: (200, "x" * LONGEST_ANSWER)
    with pytest.raises(RoostException, match="1,000,000 bytes, more than an event may carry"):
        fired(HttpRequestTrigger("x", "api"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"success_values": [1]}, "need a json_path"),
        ({"json_path": "a", "failure_values": "failed"}, "must be a list of values"),
        ({"json_path": "a..b"}, r"cannot be read from '\.\.b' on"),
        ({"json_path": 5}, "must be a text"),
        ({"poll_interval": 0}, "must be more than 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RoostException, match=message):
        trigger(**arguments)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", {"a b": {"c-d": [[1, 2], {"x.y": 3}]}, "n": None}),
        ("$", {"a b": {"c-d": [[1, 2], {"x.y": 3}]}, "n": None}),
        ("['a b'].c-d[0][1]", 2),
        ('$["a b"]["c-d"][-1]["x.y"]', 3),
        ("n", None),
        ("$.n", None),
        ("m", jsonpath.MISSING),
        ("n.m", jsonpath.MISSING),
        ("['a b'].c-d[2]", jsonpath.MISSING),
        ("['a b'].c-d[-3]", jsonpath.MISSING),
        ("['a b'][0]", jsonpath.MISSING),
    ],
)
def test_places_in_json(path: str, found: Any) -> None:
    value = {"a b": {"c-d": [[1, 2], {"x.y": 3}]}, "n": None}
    assert jsonpath.value_at(value, path) is found or jsonpath.value_at(value, path) == found


@pytest.mark.parametrize("path", ["a b", "$a", "a[", "a[x]", "a[*]", "a.", "[1", "a[1:2]", "..a"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(RoostException, match="json_path"):
        jsonpath.check_path(path)
