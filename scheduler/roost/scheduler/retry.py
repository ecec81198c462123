"""When a failed try is tried again (H13). Pure."""

from __future__ import annotations

import hashlib
import math

from roost.dag.model import SerializedTask
from roost.support.clock import SECOND

__all__ = ["has_try_left", "retry_delay_us"]


def has_try_left(task: SerializedTask, try_number: int) -> bool:
    """True when ``retries`` allow another try after this one, counted from 1 (S11)."""
    return try_number <= task.retries


def retry_delay_us(
    task: SerializedTask, try_number: int, seed: str, longest_us: int = 24 * 3600 * SECOND
) -> int:
    """Microseconds to wait after a failed try.

    With exponential backoff the delay doubles with each try, or is multiplied by the task's own
    factor, and is drawn from ``[b, 2b)`` by a hash of ``seed`` and the try: restarts and other
    schedulers come to the same moment.

    Args:
        task: its ``retry_delay``, ``retry_exponential_backoff`` and ``max_retry_delay``.
        try_number: the try that failed, from 1.
        seed: names the task instance.
        longest_us: ``core.max_task_retry_delay``, which bounds exponential backoff.
    """
    delay = task.retry_delay_us
    if task.retry_exponential_backoff:
        base = _grown(delay, task.retry_multiplier, try_number - 1, longest_us)
        digest = hashlib.sha1(f"{seed}#{try_number}".encode(), usedforsecurity=False).digest()
        delay = base + base * int.from_bytes(digest[:4]) // 2**32
        delay = min(delay, longest_us)
    if task.max_retry_delay_us is not None:
        delay = min(delay, task.max_retry_delay_us)
    return delay


def _grown(delay_us: int, factor: float, times: int, longest_us: int) -> int:
    if delay_us == 0 or factor <= 1:
        return min(delay_us, longest_us)
    if times * math.log2(factor) > 64:  # beyond any limit, and soon beyond any float
        return longest_us
    return int(min(delay_us * factor**times, longest_us))
