"""Wake-up hints across places: heard everywhere, sparing, and free where there is one place."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from roost.models.engine import driver_arguments, open_engine
from roost.support import far_bell
from roost.support.doorbell import drain
from roost.support.far_bell import FarDoorbell, channel
from tests.support.databases import Databases
from tests.support.waiting import wait_until

Place = Callable[[str, str], FarDoorbell]
_LINES = "SELECT pid FROM pg_stat_activity WHERE application_name = 'roost bell' AND datname = %s"
_WORKER, _SCHEDULER = frozenset({"worker"}), frozenset({"scheduler"})


@pytest.fixture
def url(databases: Databases) -> Iterator[str]:
    with databases.postgresql(migrated=False) as made:
        yield made


@pytest.fixture
def arguments(url: str) -> dict[str, Any]:
    engine = open_engine(url)
    found = driver_arguments(engine)
    engine.dispose()
    assert found is not None
    return found


@pytest.fixture
def admin(arguments: dict[str, Any]) -> Iterator[psycopg.Connection]:
    """A connection to another database of the same server."""
    with psycopg.connect(**arguments | {"dbname": "postgres"}, autocommit=True) as made:
        yield made


@pytest.fixture
def place(arguments: dict[str, Any], tmp_path: Path) -> Iterator[Place]:
    """Makes the bell of a daemon: by the name of its place and its kind."""
    with ExitStack() as stack:
        yield lambda name, kind: stack.enter_context(FarDoorbell(tmp_path / name, kind, arguments))


def lines(admin: psycopg.Connection, arguments: dict[str, Any]) -> list[int]:
    """The backends that serve far bells."""
    return [row[0] for row in admin.execute(_LINES, [arguments["dbname"]]).fetchall()]


def await_ring(heard: socket.socket) -> None:
    assert select.select([heard], [], [], 30)[0], "nothing rang"
    drain(heard)


def first(listener: psycopg.Connection) -> str:
    """Wait for one notification; gives its channel."""
    (note,) = listener.notifies(timeout=30, stop_after=1)
    return note.channel


def all_so_far(listener: psycopg.Connection) -> list[str]:
    """The channels of the notifications that were sent and have not been taken yet."""
    listener.execute("SELECT 1")
    return [note.channel for note in listener.notifies(timeout=0)]


@pytest.fixture
def listener(arguments: dict[str, Any]) -> Iterator[psycopg.Connection]:
    """Hears what is sent, as a stranger."""
    with psycopg.connect(**arguments | {"application_name": "test"}, autocommit=True) as made:
        for kind in ("scheduler", "worker", "triggerer"):
            made.execute(f"LISTEN {channel(kind)}".encode())
        yield made


def test_a_ring_reaches_the_other_place_and_its_kind_only(place: Place) -> None:
    here, there = place("here", "scheduler"), place("there", "worker")
    with there.listen("worker") as worker, there.listen("scheduler") as scheduler:
        there.meet(_SCHEDULER)
        await_ring(worker)  # the line is open
        here.meet(_WORKER)
        await_ring(worker)  # here has come to know there
        assert here.ring("worker") == 0  # nobody in this place
        await_ring(worker)
        assert drain(scheduler) == 0


def test_who_rings_does_not_wake_itself_from_afar(
    place: Place, listener: psycopg.Connection
) -> None:
    here = place("here", "scheduler")
    with here.listen("scheduler") as heard:
        here.meet(_SCHEDULER)
        await_ring(heard)
        assert first(listener) == "roost_scheduler"  # the ring for the newly known
        here.close()  # what was sent to itself would have been heard by now
        assert drain(heard) == 0


def test_a_storm_is_few_notifications_and_none_too_late(
    place: Place, listener: psycopg.Connection
) -> None:
    here = place("here", "scheduler")
    here.meet(_WORKER)
    assert first(listener) == "roost_worker"
    began = time.monotonic()
    for _ in range(20_000):
        here.ring("worker")
    here.close()
    took = time.monotonic() - began
    heard = all_so_far(listener)
    assert set(heard) == {"roost_worker"}
    assert len(heard) <= 2 + took / far_bell._PACE_S


def test_the_last_ring_before_the_end_is_sent(place: Place, listener: psycopg.Connection) -> None:
    """A worker's last word is a ring."""
    here = place("here", "worker")
    here.meet(_SCHEDULER)
    assert first(listener) == "roost_scheduler"
    here.ring("scheduler")
    here.close()
    assert first(listener) == "roost_scheduler"


def test_who_lives_alone_opens_nothing_and_sends_nothing(
    place: Place,
    listener: psycopg.Connection,
    admin: psycopg.Connection,
    arguments: dict[str, Any],
) -> None:
    here = place("here", "scheduler")
    with here.listen("worker") as worker:
        here.meet(frozenset())
        assert here.ring("worker") == 1
        assert drain(worker) == 1
    assert lines(admin, arguments) == []
    here.meet(_WORKER)
    assert first(listener) == "roost_worker"
    here.ring("triggerer")  # none lives elsewhere
    here.meet(frozenset())
    wait_until(lambda: not lines(admin, arguments), what="the line to be closed")
    here.ring("worker")
    assert all_so_far(listener) == []


def test_on_sqlite_there_is_no_elsewhere(tmp_path: Path) -> None:
    with FarDoorbell(tmp_path, "scheduler", None) as here:
        here.meet(_WORKER)
        assert here._line is None
        assert here.ring("worker") == 0


def test_it_comes_back_with_the_database_and_forgets_no_ring(
    place: Place, admin: psycopg.Connection, arguments: dict[str, Any]
) -> None:
    """P17: rings wait; whoever was deaf looks at once when it hears again."""
    name = arguments["dbname"]
    here, there = place("here", "scheduler"), place("there", "worker")
    with there.listen("worker") as worker, here.listen("scheduler") as scheduler:
        there.meet(_SCHEDULER)
        here.meet(_WORKER)
        await_ring(worker)
        await_ring(scheduler)
        wait_until(lambda: len(lines(admin, arguments)) == 2, what="both lines")
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        for pid in lines(admin, arguments):
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_until(lambda: not lines(admin, arguments), what="the lines to break")
        drain(worker), drain(scheduler)
        here.ring("worker")
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        await_ring(scheduler)
        await_ring(worker)
        wait_until(lambda: len(lines(admin, arguments)) == 2, what="both lines again")
        drain(worker)
        here.ring("worker")
        await_ring(worker)


def test_a_ring_that_could_not_be_sent_waits(arguments: dict[str, Any]) -> None:
    line = far_bell._Line(arguments, "scheduler", lambda: None)
    line.ring("worker")
    with psycopg.connect(**arguments) as lost:
        pass
    with pytest.raises(psycopg.OperationalError):
        line._tell(lost)
    assert line._rung == {"worker"}
    line.stop()
    line.run()  # closes what it holds


def test_a_database_out_of_reach_costs_the_caller_nothing(tmp_path: Path) -> None:
    """The thread waits, the daemon rings on and stops at once."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nowhere = {"host": "127.0.0.1", "port": port, "dbname": "x", "user": "x"}
    with FarDoorbell(tmp_path, "scheduler", nowhere) as here:
        here.meet(_WORKER)
        line = here._line
        assert line is not None
        for _ in range(1000):
            assert here.ring("worker") == 0
    assert not line.is_alive()


def test_the_url_decides_how_to_connect() -> None:
    """A password with odd characters, a socket directory: read as the pool reads them."""
    engine = open_engine("postgresql://roost:p%40ss%2Fword@/db?host=/run/pg&keepalives_idle=7")
    arguments = driver_arguments(engine)
    assert arguments == {
        "user": "roost",
        "password": "p@ss/word",
        "dbname": "db",
        "host": "/run/pg",
        "keepalives_idle": "7",
        "application_name": "roost bell",
    }
    assert conninfo_to_dict("", **{**far_bell._PATIENCE, **arguments})["keepalives_idle"] == "7"
    assert driver_arguments(open_engine("sqlite://")) is None
