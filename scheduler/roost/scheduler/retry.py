"""When a failed try is tried again (H13). Pure."""

from __future__ import annotations

import hashlib

from roost.dag.model import SerializedTask
from roost.support.clock import SECOND

__all__ = ["has_try_left", "retry_delay_us"]

_LONGEST_US = 24 * 3600 * SECOND


def has_try_left(task: SerializedTask, try_number: int) -> bool:
    """True when ``retries`` allow another try after this one, counted from 1 (S11)."""
    return try_number <= task.retries


def retry_delay_us(task: SerializedTask, try_number: int, seed: str) -> int:
    """Microseconds to wait after a failed try.

    With exponential backoff the delay doubles with each try and is drawn from ``[b, 2b)`` by a
    hash of ``seed`` and the try: restarts and other schedulers come to the same moment.

    Args:
        task: its ``retry_delay``, ``retry_exponential_backoff`` and ``max_retry_delay``.
        try_number: the try that failed, from 1.
        seed: names the task instance.
    """
    delay = task.retry_delay_us
    if task.retry_exponential_backoff:
        base = min(delay * 2 ** min(try_number - 1, 40), _LONGEST_US)
        digest = hashlib.sha1(f"{seed}#{try_number}".encode(), usedforsecurity=False).digest()
        delay = base + base * int.from_bytes(digest[:4]) // 2**32
        delay = min(delay, _LONGEST_US)
    if task.max_retry_delay_us is not None:
        delay = min(delay, task.max_retry_delay_us)
    return delay
