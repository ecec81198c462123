"""Wake-up hints: a ring reaches every live listener, and no bell can hurt the ringer."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.support.doorbell import Doorbell, drain


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Doorbell]:
    with Doorbell(tmp_path / "run") as bell:
        yield bell


def heard_within(sock: socket.socket, seconds: float = 10.0) -> bool:
    return bool(select.select([sock], [], [], seconds)[0])


def test_a_ring_wakes_its_kind_and_no_other(bell: Doorbell) -> None:
    with bell.listen("worker") as worker, bell.listen("triggerer") as triggerer:
        assert bell.ring("worker") == 1
        assert heard_within(worker)
        assert not heard_within(triggerer, 0)
        assert drain(worker) == 1
        assert drain(worker) == 0


def test_every_listener_of_a_kind_is_woken_also_in_one_process(bell: Doorbell) -> None:
    with bell.listen("worker") as first, bell.listen("worker") as second:
        assert bell.ring("worker") == 2
        assert drain(first) == drain(second) == 1


def test_a_listener_that_comes_later_is_seen_although_the_listing_is_kept(bell: Doorbell) -> None:
    with bell.listen("worker"):
        assert bell.ring("worker") == 1
        for _ in range(10):
            late = bell.listen("worker")
            try:
                assert bell.ring("worker") == 2
            finally:
                late.close()
            assert bell.ring("worker") == 1


def test_two_changes_within_one_tick_of_the_clock_are_told_apart(
    bell: Doorbell, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with bell.listen("worker"):
        before = run.stat().st_mtime_ns
        assert bell.ring("worker") == 1
        with bell.listen("worker"):
            os.utime(run, ns=(before, before))  # what a coarse clock would have written
            assert bell.ring("worker") == 2


def test_a_kind_is_not_the_prefix_of_another(bell: Doorbell) -> None:
    with bell.listen("work") as work, bell.listen("worker") as worker:
        assert bell.ring("work") == 1
        assert (drain(work), drain(worker)) == (1, 0)


def test_a_full_bell_counts_as_rung_and_does_not_block(bell: Doorbell) -> None:
    with bell.listen("worker") as heard:
        assert {bell.ring("worker") for _ in range(2000)} == {1}
        assert 0 < drain(heard) < 2000
        assert bell.ring("worker") == 1


def test_closing_takes_the_file_away(bell: Doorbell, tmp_path: Path) -> None:
    bell.listen("worker").close()
    assert os.listdir(tmp_path / "run") == []
    assert bell.ring("worker") == 0


def test_a_ring_without_a_run_directory_reaches_nobody(bell: Doorbell, tmp_path: Path) -> None:
    assert bell.ring("worker") == 0
    assert not (tmp_path / "run").exists()


def test_a_closed_doorbell_does_not_raise(bell: Doorbell) -> None:
    with bell.listen("worker"):
        bell.close()
        assert bell.ring("worker") == 0


def test_the_files_of_a_killed_process_are_removed(bell: Doorbell, tmp_path: Path) -> None:
    run = tmp_path / "run"
    listener = (
        "import os, signal, sys; from roost.support.doorbell import Doorbell;"
        "heard = Doorbell(sys.argv[1]).listen('worker'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", listener, str(run)], check=False, timeout=30)
    assert len(os.listdir(run)) == 1
    assert bell.ring("worker") == 0
    assert os.listdir(run) == []


def test_a_file_without_a_socket_of_a_living_process_is_left_alone(
    bell: Doorbell, tmp_path: Path
) -> None:
    with bell.listen("worker") as heard:
        path = tmp_path / "run" / f"triggerer-{os.getpid()}.bell"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
            stale.bind(str(path))
        assert bell.ring("triggerer") == 0
        assert path.exists()
        with bell.listen("triggerer") as again:
            assert bell.ring("triggerer") == 1
            assert drain(again) == 1
        assert bell.ring("worker") == 1
        assert drain(heard) == 1


def test_a_forked_copy_leaves_the_file_of_its_parent(bell: Doorbell, tmp_path: Path) -> None:
    heard = bell.listen("worker")
    child = os.fork()
    if child == 0:
        heard.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bell.ring("worker") == 1
    heard.close()
    assert os.listdir(tmp_path / "run") == []


def test_a_run_directory_too_long_for_a_socket_address_works(tmp_path: Path) -> None:
    run = tmp_path / ("long" * 40) / "run"
    assert len(str(run)) > 108
    with Doorbell(run) as bell, bell.listen("worker") as heard:
        assert os.listdir(run) == [f"worker-{os.getpid()}.bell"]
        assert bell.ring("worker") == 1
        assert drain(heard) == 1


def test_only_the_owner_may_enter(bell: Doorbell, tmp_path: Path) -> None:
    with bell.listen("worker"):
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["", "Worker", "a-b", "../up", "a b", "x" * 40])
def test_a_strange_kind_is_refused(bell: Doorbell, kind: str) -> None:
    with pytest.raises(ValueError, match="no kind of bell"):
        bell.listen(kind)


def test_threads_share_one_doorbell_and_no_wake_up_is_lost(bell: Doorbell) -> None:
    """Drain first, then look: whatever was posted before the last ring is seen."""
    posted: list[int] = []

    def post(start: int) -> None:
        for number in range(start, start + 500):
            posted.append(number)
            bell.ring("worker")

    with bell.listen("worker") as heard:
        threads = [threading.Thread(target=post, args=(n * 500,)) for n in range(4)]
        for thread in threads:
            thread.start()
        seen: set[int] = set()
        while len(seen) < 2000:
            assert heard_within(heard)
            drain(heard)
            seen.update(posted)
        for thread in threads:
            thread.join()
