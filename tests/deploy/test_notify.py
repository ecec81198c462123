"""sd_notify against a fake service manager, by path and in the abstract name space."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.support.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    where = "\0" + tmp_path.name + str(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(where if request.param == "abstract" else str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def notifier(manager: socket.socket, **environ: str) -> Notifier:
    name = manager.getsockname()
    address = "@" + name[1:].decode() if isinstance(name, bytes) else name
    return Notifier({"NOTIFY_SOCKET": address, **environ})


def test_the_life_of_a_service(manager: socket.socket) -> None:
    tell = notifier(manager)
    assert tell.active
    assert tell.ready("3 DAGs")
    assert tell.status("4 tasks run")
    assert tell.watchdog()
    assert tell.extend_timeout(1.5)
    assert tell.stopping()
    assert [manager.recv(4096) for _ in range(5)] == [
        b"READY=1\nSTATUS=3 DAGs",
        b"STATUS=4 tasks run",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
        b"STOPPING=1",
    ]


def test_a_status_is_one_line_of_bounded_length(manager: socket.socket) -> None:
    tell = notifier(manager)
    assert tell.status("café\nMAINPID=1\n" + "x" * 5000 + "\ud800")
    message = manager.recv(8192).decode()
    assert message.startswith("STATUS=café MAINPID=1 xxx")
    assert "\n" not in message
    assert len(message) <= 1007


def test_a_manager_that_does_not_read_blocks_nobody(manager: socket.socket) -> None:
    tell = notifier(manager)
    said = [tell.watchdog() for _ in range(2000)]
    assert said[0]
    assert not said[-1]


def test_a_manager_that_is_gone_is_no_error(manager: socket.socket) -> None:
    tell = notifier(manager)
    manager.close()
    assert not tell.ready()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/nowhere/notify"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "@" + "x" * 200},
        {"NOTIFY_SOCKET": "/a\0b"},
    ],
)
def test_without_a_service_manager_nothing_happens(environ: dict[str, str]) -> None:
    tell = Notifier(environ)
    assert not tell.ready("up")
    assert not tell.watchdog()
    assert not tell.stopping()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environ).watchdog_interval() == seconds
