"""Waiting for what another process does, where it gives no signal that a test could await."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_until"]

_STEP_S = 0.02
T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 30, what: str = "") -> T:
    """Ask ``predicate`` until its answer is true; returns that answer.

    Args:
        predicate: usually a query; asked every 20 ms.
        timeout: seconds; only a bound for a failing test, never a measure.
        what: what is waited for, for the message.

    Raises:
        TimeoutError: the answer stayed false; holds the last one.
    """
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what or predicate}; last: {answer!r}")
        time.sleep(_STEP_S)
    return answer
