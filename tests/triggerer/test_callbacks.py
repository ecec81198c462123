"""``roost triggerer --callback-port``: real requests over real sockets, friendly and hostile."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from unittest.mock import MagicMock

import anyio
import pytest

from roost.exceptions import ConfigError
from roost.support.clock import SECOND, now_us
from roost.support.config import Config, load_config
from roost.support.crypto import KEY_FILE, Keyring
from roost.support.event_tokens import make_token
from roost.support.settings import Triggerer
from roost.support.stats import NullStats
from roost.triggerer.callback_limits import Rates
from roost.triggerer.callbacks import CallbackServer, check_host
from tests.support.daemons import Daemon, Daemons
from tests.support.waiting import wait_until
from tests.triggerer.test_external import waits
from tests.triggerer.world import World

FAST = {"ROOST__TRIGGERER__CALLBACK_RATE": "10000"}


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class Port:
    """A triggerer's callback port, and the keys to make tokens for it."""

    def __init__(self, world: World, daemons: Daemons, home: Path, **env: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.number = free.getsockname()[1]
        self.world = world
        self.keys = Keyring(file=home / KEY_FILE)
        self.daemon: Daemon = daemons.start(
            "triggerer", "--callback-port", str(self.number), env={**FAST, **env}
        )
        wait_until(lambda: "taking events at" in self.daemon.output, what="the port")

    def token(self, life_us: int = 3600 * SECOND, made_at: int | None = None) -> str:
        return make_token(self.keys, "a", now_us() if made_at is None else made_at, life_us)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.number, timeout=30)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, json.loads(text or b"null"), found)
        finally:
            connection.close()

    def post(self, token: str, body: bytes | None = b"null", **headers: str) -> Answer:
        return self.ask("POST", f"/events/{token}", body, **headers)

    def raw(self, data: bytes, *, end: bool = True) -> bytes:
        """Send bytes; what comes back."""
        with socket.create_connection(("127.0.0.1", self.number), timeout=30) as client:
            try:
                client.sendall(data)
                if end:
                    client.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: client.recv(65536), b""))
            except ConnectionError:
                return b""

    def events(self) -> int:
        return int(self.world.rows("SELECT count(*) AS n FROM external_event")[0]["n"])


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", "")


@pytest.fixture
def port(world: World, daemons: Daemons, roost_home: Path) -> Iterator[Port]:
    made = Port(world, daemons, roost_home)
    yield made
    assert made.ask("GET", "/healthz").status == 200, "whatever happened, it serves"
    assert made.daemon.process.poll() is None
    assert "Traceback" not in made.daemon.output


def test_event_by_http_wakes_its_task_once(port: Port) -> None:
    """A token is good for one event: the second POST gets 409 and changes nothing."""
    (number,) = port.world.defer([waits("a")])
    token = port.token()
    answer = port.post(token, b'{"rows": 42}')
    assert (answer.status, answer.body) == (202, {"status": "accepted"})
    wait_until(port.world.events, what="the event")
    assert port.world.events()[number]["value"] == {"rows": 42}
    again = port.post(token, b'{"rows": 43}')
    assert (again.status, again.body) == (409, {"error": "this token was used before"})
    assert port.events() == 1
    (row,) = port.world.rows("SELECT sender, payload FROM external_event")
    assert row["sender"] == "token, from 127.0.0.1"
    assert "rows" not in row["payload"]
    assert token not in port.daemon.output


def test_one_of_many_at_once_wins(port: Port) -> None:
    token = port.token()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: port.post(token).status, range(16)))
    assert sorted(answers) == [202] + [409] * 15
    assert port.events() == 1


def test_no_token_no_event(port: Port) -> None:
    """Forged, foreign and other things alike are 404; an expired one of ours is 410."""
    good = port.token()
    foreign = make_token(Keyring("A" * 43 + "="), "a", now_us(), SECOND)
    nothing = port.ask("POST", "/nothing", b"1")
    assert (nothing.status, nothing.body) == (404, {"error": "not found"})
    for token in (good[:-1] + ("A" if good[-1] != "A" else "B"), foreign, "x", "", good + "?a=1"):
        refused = port.post(token)
        assert (refused.status, refused.body) == (nothing.status, nothing.body)
        assert refused.headers == nothing.headers
    assert port.post(port.token(life_us=1, made_at=now_us() - SECOND)).status == 410
    assert port.events() == 0
    assert port.post(good).status == 202


PLACES: list[tuple[str, str, int, str | None]] = [
    ("GET", "/events/x", 405, "POST"),
    ("PUT", "/events/x", 405, "POST"),
    ("DELETE", "/events/x", 405, "POST"),
    ("HEAD", "/events/x", 405, "POST"),
    ("OPTIONS", "/events/x", 405, "POST"),
    ("POST", "/healthz", 405, "GET"),
    ("GET", "/", 404, None),
    ("POST", "/", 404, None),
    ("POST", "/events", 404, None),
    ("POST", "//events/x", 404, None),
    ("GET", "/metrics", 404, None),
]


def test_only_what_there_is(port: Port) -> None:
    for method, path, status, allow in PLACES:
        answer = port.ask(method, path)
        assert (answer.status, answer.headers.get("allow")) == (status, allow), (method, path)
        assert "server" not in answer.headers


BODIES = [
    (b"", 202),
    (b"{", 400),
    (b"NaN", 400),
    (b"\xff\xfe", 400),
    (b"[" * 40 + b"]" * 40, 400),
    (b"[" * 500_000, 400),
    (b'"' + b"x" * (1 << 20) + b'"', 413),
    (b"[" + b"1," * (3 << 19) + b"1]", 413),
    (b'{"a": 1} trailing', 400),
    (b'"\\u0000"', 400),
    ('"☃ \\ud83d\\ude00"'.encode(), 202),
    (str(10**400).encode(), 202),
]


def test_bodies(port: Port) -> None:
    """A body that is refused does not use up its token."""
    for number, (body, status) in enumerate(BODIES):
        token = port.token()
        answer = port.post(token, body)
        assert answer.status == status, body[:20]
        if status != 202:
            assert port.events() == number
            assert len(answer.body["error"]) <= 400
            assert port.post(token, b"1").status == 202
        assert port.events() == number + 1


def test_chunked_bodies_are_measured_as_they_come(port: Port) -> None:
    token = port.token()

    def chunks(count: int) -> bytes:
        head = f"POST /events/{token} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        return head.encode() + chunk * count + b"1\r\n1\r\n0\r\n\r\n"

    without_end = chunks(20).removesuffix(b"1\r\n1\r\n0\r\n\r\n")
    assert port.raw(without_end, end=False).startswith(b"HTTP/1.1 413 ")
    assert port.raw(chunks(2)).startswith(b"HTTP/1.1 202 ")


def test_one_request_for_each_connection(port: Port) -> None:
    """What hides behind a request is never looked at."""
    first, second = (
        f"POST /events/{port.token()} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1".encode()
        for _ in range(2)
    )
    assert port.raw(first + second).count(b"HTTP/1.1 ") == 1
    assert port.events() == 1


NO_REQUESTS = [
    (b"\x16\x03\x01\x02\x00", b""),
    (b"hello\r\n\r\n", b"400"),
    (b"POST /events/x HTTP/1.1\r\n\r\n", b"400"),
    (b"POST /events/x HTTP/9.9\r\nHost: x\r\n\r\n", b"404"),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000, b"431"),
    (b"GET /" + b"a" * 100_000, b"431"),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"431"),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\n Folded: y\r\n\r\n", b""),
]


def test_what_is_no_request(port: Port) -> None:
    for data, status in NO_REQUESTS:
        answer = port.raw(data)
        assert answer.startswith(b"HTTP/1.1 " + status) or not answer, data[:30]
    assert port.events() == 0


def test_garbage(port: Port) -> None:
    """Hundreds of requests, mutilated at random: no event, no traceback, and it serves on."""
    chance = random.Random(7)  # noqa: S311 - the same each time
    good = b"POST /events/" + b"A" * 80 + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    for _ in range(300):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 12)):
            place = chance.randrange(len(data))
            what = chance.randrange(3)
            if what == 0:
                data[place] = chance.randrange(256)
            elif what == 1:
                del data[place : place + chance.randrange(1, 20)]
            else:
                data[place:place] = chance.randbytes(chance.randrange(1, 40))
            data = data or bytearray(b"x")
        port.raw(bytes(data))
    assert port.events() == 0


def test_slow_clients_keep_nobody_out(port: Port) -> None:
    """Slowloris: 200 connections that never finish their head; others are answered at once."""
    with ExitStack() as stack:
        for _ in range(200):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port.number)))
            client.sendall(b"POST /events/x HTTP/1.1\r\nHost:")
        for _ in range(20):
            assert port.post(port.token()).status == 202


def test_slow_body_ends_in_time(port: Port) -> None:
    """It gets its answer while it still sends."""
    head = f"POST /events/{port.token()} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1"
    assert port.raw(head.encode(), end=False).startswith(b"HTTP/1.1 408 ")
    assert port.events() == 0


def test_who_asks_too_often_is_told_when_to_come_again(
    world: World, daemons: Daemons, roost_home: Path
) -> None:
    """429 with Retry-After, by client: whom a proxy of this host names is one of its own."""
    port = Port(world, daemons, roost_home, ROOST__TRIGGERER__CALLBACK_RATE="0.1")
    assert port.post(port.token()).status == 202
    token = port.token()
    refused = port.post(token)
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 11
    assert port.events() == 1
    assert port.post(token, x_forwarded_for="8.8.8.8, 192.0.2.7").status == 202
    assert port.post(port.token(), x_forwarded_for="1.1.1.1, 192.0.2.7").status == 429
    assert port.post(port.token(), x_forwarded_for="nonsense").status == 429


def test_rates_fill_again_and_are_bounded_in_all() -> None:
    rates = Rates(1.0, 0.0)
    assert [rates.refusal("a", 0.0) for _ in range(6)] == [None] * 5 + [1.0]
    assert rates.refusal("a", 1.0) is None
    assert rates.refusal("a", 1.5) == 0.5
    many = [rates.refusal(f"c{n}", 2.0) for n in range(10_000)]
    assert sum(wait is None for wait in many) <= 50
    assert len(rates._clients) <= 4096


def test_a_database_that_is_away_costs_the_triggerer_nothing(
    world: World, daemons: Daemons, roost_home: Path, database_kind: str
) -> None:
    """Events wait for a lock and time out; timers fire meanwhile, and the token stays good."""
    if database_kind == "sqlite":
        pytest.skip("SQLite has one writer, of timers too")
    port = Port(world, daemons, roost_home)
    tokens = [port.token() for _ in range(60)]
    with world.engine.connect() as other:
        transaction = other.begin()
        other.exec_driver_sql("LOCK TABLE external_event IN SHARE MODE")
        with ThreadPoolExecutor(60) as pool:
            asked = [pool.submit(port.post, token) for token in tokens]
            (timer,) = world.defer([{"due_at": now_us()}])
            wait_until(lambda: timer in world.events(), what="the timer")
            assert not any(one.done() for one in asked), "all of them wait"
            assert {answer.result().status for answer in asked} == {408}
        transaction.rollback()
    blocked = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    wait_until(lambda: world.rows(blocked)[0]["n"] == 0, what="the lock to be gone")
    assert {port.post(token).status for token in tokens} <= {202, 409}
    wait_until(lambda: port.events() == 60, what="each event, once")


def test_whoever_is_given_up_leaves_no_thread_beside_another(roost_home: Path) -> None:
    """A database that hangs costs one thread, however many requests have run out of time."""
    may_go, hanging = threading.Event(), threading.Event()
    begun: list[int] = []

    def hangs() -> bool:
        begun.append(threading.get_ident())
        hanging.set()
        return may_go.wait()

    async def run() -> None:
        config = load_config({"ROOST_HOME": str(roost_home)})
        server = CallbackServer(
            config, MagicMock(), NullStats(), lambda: None, port=0, host="127.0.0.1"
        )
        async with anyio.create_task_group() as server._group:
            for _ in range(5):
                with anyio.move_on_after(0.01) as scope:
                    await server._in_turn(hangs)
                assert scope.cancelled_caught
            await anyio.to_thread.run_sync(hanging.wait)
            assert len(begun) == 1
            may_go.set()
            assert await server._in_turn(hangs)
        assert len(begun) == 2

    anyio.run(run)


def test_an_error_inside_is_a_500_that_tells_nothing(
    world: World, daemons: Daemons, roost_home: Path, database_kind: str
) -> None:
    """One line for whoever asks, one traceback in the log; the token stays good and it serves."""
    port = Port(world, daemons, roost_home)
    refuse = "ALTER TABLE external_event ADD CONSTRAINT canary CHECK (id < 0)"
    allow = "ALTER TABLE external_event DROP CONSTRAINT canary"
    if database_kind == "sqlite":
        refused = "SELECT RAISE(ABORT, 'canary')"
        refuse = f"CREATE TRIGGER canary BEFORE INSERT ON external_event BEGIN {refused}; END"
        allow = "DROP TRIGGER canary"
    token = port.token()
    with world.engine.begin() as connection:
        connection.exec_driver_sql(refuse)
    answer = port.post(token, b'{"password": "t0p-s3cret"}')
    assert (answer.status, answer.body) == (500, {"error": "internal error"})
    assert answer.headers["connection"] == "close"
    wait_until(lambda: "canary" in port.daemon.output, what="the traceback")
    assert port.daemon.output.count("a request for an event failed") == 1
    assert "IntegrityError" in port.daemon.output
    assert token not in port.daemon.output
    assert "t0p-s3cret" not in port.daemon.output
    with world.engine.begin() as connection:
        connection.exec_driver_sql(allow)
    assert port.post(token).status == 202
    assert port.events() == 1


def test_an_address_that_others_reach_is_refused() -> None:
    def check(host: str, **settings: Any) -> None:
        check_host(cast("Config", SimpleNamespace(triggerer=Triggerer(**settings))), host)

    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", ""):  # noqa: S104
        with pytest.raises(ConfigError, match="callback_allow_remote"):
            check(host)
        check(host, callback_allow_remote=True)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        check(host)


def test_a_wrong_address_is_one_line_at_the_start(world: World, daemons: Daemons) -> None:
    with pytest.raises(RuntimeError, match="callback_allow_remote"):
        daemons.start("triggerer", "--callback-port", "1", "--callback-host", "0.0.0.0")  # noqa: S104


def test_port_in_use_is_told_and_taken_later(
    world: World, daemons: Daemons, roost_home: Path
) -> None:
    """A second triggerer of the host with the same settings works, and takes over the port."""
    first = Port(world, daemons, roost_home)
    second = daemons.start("triggerer", "--callback-port", str(first.number), env=FAST)
    wait_until(lambda: "cannot take events at" in second.output, what="the error line")
    (number,) = world.defer([waits("a")])
    assert first.post(first.token()).status == 202
    wait_until(lambda: number in world.events(), what="the event")
    first.daemon.kill()
    wait_until(lambda: "taking events at" in second.output, what="the port")
    assert first.post(first.token()).status == 202
