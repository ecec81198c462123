"""Interrupts wait while a task does what must not be left half done."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from roost.dag.interrupt import Interrupts, holding
from roost.exceptions import TaskTerminated
from roost.operators import EmptyOperator


def test_sigterm_that_lands_in_another_thread_is_held_back_too() -> None:
    """The handler runs in the main thread wherever the signal lands, past that thread's mask."""
    held, sent = threading.Event(), threading.Event()
    done = []

    def interrupt() -> None:
        held.wait(20)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        sent.set()

    helper = threading.Thread(target=interrupt)
    helper.start()  # before: a thread inherits the mask of the one that starts it
    with pytest.raises(TaskTerminated), Interrupts(EmptyOperator(task_id="a"), None, None):
        with holding():
            held.set()
            sent.wait(20)
            done.append(os.getpid())  # bytecode at which the handler would have raised
        threading.Event().wait(10)
    helper.join()
    assert done
