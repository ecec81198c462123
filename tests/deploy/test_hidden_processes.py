"""Peers below a hardened unit: ``ProtectProc=invisible`` hides undumpable processes in /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from roost.support.processes import is_alive, start_ticks


def test_a_running_process_is_alive_and_another_under_its_pid_is_not() -> None:
    started = start_ticks(os.getpid())
    assert started is not None
    assert is_alive(os.getpid(), started)
    assert not is_alive(os.getpid(), started + 1)


def test_an_ended_process_is_dead_before_and_after_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = start_ticks(child.pid)
    assert started is not None
    assert is_alive(child.pid, started)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not is_alive(child.pid, started)
    child.communicate()
    assert not is_alive(child.pid, started)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a /proc of its own")
def test_a_process_that_proc_hides_counts_as_alive_until_it_ends() -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from roost.support.osproc import hide_memory
        from roost.support.processes import is_alive, start_ticks

        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        read, write = os.pipe()
        peer = os.fork()
        if peer == 0:
            hide_memory()
            os.write(write, b"x")
            signal.pause()
        os.read(read, 1)
        assert start_ticks(peer) is None, "proc does not hide it"
        assert is_alive(peer, 12345)
        os.kill(peer, signal.SIGKILL)
        os.waitpid(peer, 0)
        assert not is_alive(peer, 12345)
        """
    )
    # A pid name space of its own, so that its /proc may be mounted with hidepid.
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-ec",
         'mount -t proc -o hidepid=2 proc /proc; exec "$@"', "sh",
         sys.executable, "-c", script],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
