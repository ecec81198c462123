"""The statsd client against a real UDP receiver, and against none (2b of the fault matrix)."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator

import pytest

from roost.support.metrics import MAX_NAME, METRICS, UnknownMetric, find, wire_name
from roost.support.stats import NullStats, Reading, open_stats
from roost.support.statsd_client import StatsdStats
from roost.support.statsd_wire import MAX_DATAGRAM, Sender

LINE = re.compile(r"[A-Za-z0-9_.-]{1,200}:-?[0-9]+(\.[0-9]+)?\|(g|c|ms)")


class Server:
    """A statsd server as simple as can be: the last gauge, the sum of counters, all timings."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.port: int = sock.getsockname()[1]
        self.datagrams: list[str] = []
        self.history: dict[str, list[float]] = defaultdict(list)

    def read(self) -> dict[str, float]:
        """Take in what has arrived; every line must be a well-formed one."""
        while True:
            try:
                data = self.sock.recv(65536).decode("ascii")
            except BlockingIOError:
                break
            self.datagrams.append(data)
            for line in data.split("\n"):
                assert LINE.fullmatch(line), line
                name, value = line.split("|")[0].split(":")
                self.history[name].append(float(value))
        return {
            name: sum(values) if find_kind(name) == "counter" else values[-1]
            for name, values in self.history.items()
        }


def find_kind(wire: str) -> str:
    bare = wire.removeprefix("roost.")
    fits = [m for m in METRICS if bare == m.stem or bare.startswith(m.stem + ".")]
    return max(fits, key=lambda metric: len(metric.stem)).kind


@pytest.fixture
def server() -> Iterator[Server]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield Server(sock)


@pytest.fixture
def stats(server: Server) -> Iterator[StatsdStats]:
    stats = StatsdStats("127.0.0.1", server.port)
    yield stats
    stats.close(10)


def test_each_kind_arrives_under_its_name_with_the_prefix(
    stats: StatsdStats, server: Server
) -> None:
    stats.gauge("executor.open_slots", 30)
    stats.gauge("dag_processing.total_parse_time", 0.25)
    stats.incr("ti.start", dag="etl", task="load")
    stats.timing("dagrun.duration.success.{dag}", 12.5, dag="etl")
    assert stats.flush(10)
    assert server.read() == {
        "roost.executor.open_slots": 30,
        "roost.dag_processing.total_parse_time": 0.25,
        "roost.ti.start.etl.load": 1,
        "roost.dagrun.duration.success.etl": 12.5,
    }
    assert stats.dropped == 0


def test_counters_add_up_over_threads_and_many_metrics_share_a_datagram(
    stats: StatsdStats, server: Server
) -> None:
    def count() -> None:
        for number in range(1000):
            stats.incr("ti_successes")
            stats.incr("ti.start", dag="etl", task=f"task_{number % 100}")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats.flush(10)
    got = server.read()
    assert got.pop("roost.ti_successes") == 4000
    assert set(got.values()) == {40.0}
    assert len(got) == 100
    assert max(len(datagram) for datagram in server.datagrams) <= MAX_DATAGRAM
    assert len(server.datagrams) < 101


def test_a_gauge_below_zero_or_with_many_digits_is_set_not_subtracted(
    stats: StatsdStats, server: Server
) -> None:
    stats.gauge("pool.open_slots", -1, pool="endless")
    stats.gauge("dag_processing.total_parse_time", 0.000012)
    stats.gauge("dagbag_size", 1e18)
    assert stats.flush(10)
    server.read()
    # A bare "-1|g" would mean "one less": the client sends 0 first.
    assert server.history["roost.pool.open_slots.endless"] == [0, -1]
    assert server.history["roost.dag_processing.total_parse_time"] == [0]
    assert server.history["roost.dagbag_size"] == [1e18]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_left_out(stats: StatsdStats, server: Server, bad: float) -> None:
    stats.gauge("dagbag_size", bad)
    stats.timing("scheduler.scheduler_loop_duration", bad)
    stats.incr("ti_failures")
    assert stats.flush(10)
    assert server.read() == {"roost.ti_failures": 1}


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("café", "caf_"),
        ("a\nroost.executor.open_slots:999|g", "a_roost_executor_open_slots_999_g"),
        ("group.task", "group_task"),
        ("a:b|c@d#e", "a_b_c_d_e"),
        ("", "_"),
        ("\ud800\x00", "__"),
    ],
)
def test_a_label_can_neither_break_nor_inject_a_line(
    stats: StatsdStats, server: Server, value: str, part: str
) -> None:
    stats.gauge("pool.open_slots", 3, pool=value)
    assert stats.flush(10)
    assert server.read() == {f"roost.pool.open_slots.{part}": 3}


def test_a_prefix_is_made_harmless_too(server: Server) -> None:
    stats = StatsdStats("127.0.0.1", server.port, "team a.\nprod.")
    stats.incr("ti_failures")
    stats.close(10)
    server.sock.setblocking(True)
    assert server.sock.recv(1000) == b"team_a._prod.ti_failures:1|c"


def test_an_empty_prefix_leaves_the_bare_name(server: Server) -> None:
    stats = StatsdStats("127.0.0.1", server.port, "")
    stats.incr("ti_failures")
    stats.close(10)
    server.sock.setblocking(True)
    assert server.sock.recv(1000) == b"ti_failures:1|c"


def test_long_labels_stay_apart_and_within_the_limit() -> None:
    metric = find("ti.scheduled")
    names = {
        wire_name(metric, {"queue": "q" * 250, "dag": "d" * 250 + end, "task": "t" * 250}, "p" * 99)
        for end in "ab"
    }
    assert len(names) == 2
    for name in names:
        assert len(name) <= MAX_NAME
        assert name.count(".") == 5


def test_a_gauge_that_is_gone_becomes_zero_and_is_said_so_more_than_once(
    stats: StatsdStats, server: Server
) -> None:
    """One lost datagram must not leave a number standing for good (#22939)."""
    ti = {"queue": "default", "dag": "etl", "task": "load"}
    stats.report([Reading("ti.deferred", 7, ti), Reading("dagbag_size", 1, {})])
    assert stats.flush(10)
    for _ in range(6):
        stats.report([Reading("dagbag_size", 1, {})])
        assert stats.flush(10)
    server.read()
    assert server.history["roost.ti.deferred.default.etl.load"] == [7, 0, 0, 0]
    assert server.history["roost.dagbag_size"] == [1] * 7


def test_labels_that_look_alike_as_a_name_are_added_not_overwritten(
    stats: StatsdStats, server: Server
) -> None:
    stats.report(
        [
            Reading("triggers.running", 3, {"host": "a.example"}),
            Reading("triggers.running", 4, {"host": "a_example"}),
        ]
    )
    assert stats.flush(10)
    assert server.read() == {"roost.triggers.running.a_example": 7}


def test_all_gauges_go_to_zero_on_exit(stats: StatsdStats, server: Server) -> None:
    """2D: no gauge outlives the process that answers for it."""
    stats.gauge("executor.running_tasks", 5)
    stats.report([Reading("pool.open_slots", 3, {"pool": "p"})])
    stats.incr("ti_failures")
    assert stats.flush(10)
    stats.zero_all()
    stats.close(10)
    assert server.read() == {
        "roost.executor.running_tasks": 0,
        "roost.pool.open_slots.p": 0,
        "roost.ti_failures": 1,
    }
    stats.gauge("executor.running_tasks", 5)
    assert not stats.flush(0) or server.read()["roost.executor.running_tasks"] == 0


def test_a_reporter_that_was_relieved_zeroes_nothing(stats: StatsdStats, server: Server) -> None:
    stats.report([Reading("executor.running_tasks", 5, {})])
    assert stats.flush(10)
    stats.forget()
    stats.report([])
    stats.zero_all()
    assert stats.flush(10)
    server.read()
    assert server.history["roost.executor.running_tasks"] == [5]


def test_an_unresolvable_host_costs_only_a_count_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = threading.Event()

    def nobody(*_: object, **__: object) -> None:
        asked.set()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    stats = open_stats("nowhere.invalid")
    assert not asked.is_set()  # not in the constructor
    stats.incr("ti_failures")
    assert stats.flush(10)
    assert asked.is_set()
    assert stats.dropped == 1
    stats.incr("ti_failures")
    stats.close(10)
    (warning,) = caplog.messages
    assert "no metrics: statsd.host 'nowhere.invalid' cannot be looked up" in warning


def test_a_look_up_that_hangs_holds_up_nobody_and_the_buffer_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()
    asked = threading.Event()

    def slow(*_: object, **__: object) -> None:
        asked.set()
        assert answer.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    stats = StatsdStats("slow.invalid", capacity=10, gather=0)
    stats.incr("ti_failures")
    assert asked.wait(10)
    for number in range(50):
        stats.gauge("pool.open_slots", number, pool=str(number))
    stats.gauge("pool.open_slots", 1, pool="0")  # known: needs no room
    assert stats.dropped == 40
    assert not stats.flush(0.01)
    answer.set()
    assert stats.flush(10)
    stats.close(10)
    assert stats.dropped == 40 + 1 + 10 + 1  # besides: the first, the buffer, the count itself


@pytest.mark.parametrize("host", ["x" * 300, "a..b", "\udcff", " "])
def test_a_host_that_makes_no_sense_does_not_raise(host: str) -> None:
    stats = StatsdStats(host, gather=0)
    stats.incr("ti_failures")
    assert stats.flush(10)
    stats.close(10)
    assert stats.dropped == 1


def test_a_port_where_nobody_listens_is_silence(server: Server, stats: StatsdStats) -> None:
    server.sock.close()
    for _ in range(3):
        stats.incr("ti_failures")
        assert stats.flush(10)


def test_a_server_that_comes_back_under_another_address_is_found(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statsd package resolves its host once; a restarted container has another address."""
    sender = Sender("statsd.example", server.port)
    address = ["127.0.0.9"]

    def resolve(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (address[0], server.port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    sender.send({}, {"roost.ti_failures": 1}, [], now=0.0)
    address[0] = "127.0.0.1"
    sender.send({}, {"roost.ti_failures": 2}, [], now=59.0)
    assert server.read() == {}
    assert sender.send({}, {"roost.ti_failures": 4}, [], now=61.0) == 0
    assert server.read() == {"roost.ti_failures": 4}
    sender.close()


def test_a_socket_closed_midway_is_replaced_and_the_loss_is_told(
    server: Server, stats: StatsdStats
) -> None:
    stats.incr("ti_failures")
    assert stats.flush(10)
    sender = stats._sender
    assert sender._sock is not None
    os.close(sender._sock.detach())
    stats.incr("ti_failures")
    assert stats.flush(10)
    assert stats.dropped == 1
    sender._looked_at = float("-inf")  # as if the pause before a new look-up had passed
    stats.incr("ti_successes")
    assert stats.flush(10)
    assert server.read() == {
        "roost.ti_failures": 1,
        "roost.ti_successes": 1,
        "roost.statsd.dropped": 1,
    }


def test_a_forked_child_is_mute_even_when_the_lock_was_held(
    server: Server, stats: StatsdStats
) -> None:
    stats.gauge("executor.running_tasks", 5)
    assert stats.flush(10)
    with stats._changed:
        child = os.fork()
        if child == 0:
            stats.incr("ti_failures")
            stats.zero_all()
            stats.close(1)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stats.flush(10)
    assert server.read() == {"roost.executor.running_tasks": 5}


def test_without_threads_left_metrics_are_dropped(
    stats: StatsdStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    stats.incr("ti_failures")
    assert stats.dropped == 1


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_mistaken_name_or_label_shows_also_with_metrics_off(host: str) -> None:
    stats = open_stats(host)
    with pytest.raises(UnknownMetric, match=r"executor\.open_slotz"):
        stats.gauge("executor.open_slotz", 1)
    with pytest.raises(UnknownMetric, match="is a gauge, not a counter"):
        stats.incr("executor.open_slots")
    with pytest.raises(UnknownMetric, match="takes the labels"):
        stats.gauge("pool.open_slots", 1)
    with pytest.raises(UnknownMetric, match="takes the labels"):
        stats.incr("ti_failures", dag="etl")
    stats.close()


def test_no_host_means_no_thread_and_no_work() -> None:
    before = threading.active_count()
    stats = open_stats("")
    assert isinstance(stats, NullStats)
    stats.gauge("executor.open_slots", 1)
    stats.incr("ti_failures")
    stats.timing("scheduler.scheduler_loop_duration", 1)
    stats.report([Reading("dagbag_size", 1, {})])
    stats.forget()
    stats.zero_all()
    assert stats.flush()
    stats.close()
    assert stats.dropped == 0
    assert threading.active_count() == before
