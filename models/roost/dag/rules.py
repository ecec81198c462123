"""Trigger rules as pure functions of how a task's direct parents ended (S77-S88, H19).

A rule sees only counts. Early decisions are taken the moment they are certain: `all_success` is
upstream_failed with the first failed parent, `one_success` runs with the first success.

Parents in state ``removed`` count as if they were no parents. Without (remaining) parents every
rule passes (S87).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from roost.dag.model import TriggerRule

__all__ = ["RULES", "Counts", "Rule", "Verdict", "evaluate"]


class Verdict(enum.Enum):
    """What a rule says about a task that has not started."""

    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"
    UPSTREAM_FAILED = "upstream_failed"


class Counts(NamedTuple):
    """How the direct parents of a task ended; parents that are unfinished are only in ``total``.

    Attributes:
        total: all direct parents, including removed ones.
        setups: those of them that are setup tasks (H18), for ``all_done_setup_success``.
        setup_success: setup parents that succeeded.
        setup_skipped: setup parents that were skipped.
    """

    total: int
    success: int = 0
    failed: int = 0
    upstream_failed: int = 0
    skipped: int = 0
    removed: int = 0
    setups: int = 0
    setup_success: int = 0
    setup_skipped: int = 0

    @property
    def done(self) -> int:
        """Parents in any final state."""
        return self.success + self.failed + self.upstream_failed + self.skipped + self.removed


_WAIT, _RUN, _SKIP = Verdict.WAIT, Verdict.RUN, Verdict.SKIP
_UPSTREAM_FAILED = Verdict.UPSTREAM_FAILED

# (present parents, success, failed or upstream_failed, upstream_failed, skipped) -> verdict.
# Flat integers, because a scheduler calls a rule once for every edge whose parent finished.
Rule = Callable[[int, int, int, int, int], Verdict]


def _all_success(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    if failed:
        return _UPSTREAM_FAILED
    if skipped:
        return _SKIP
    return _RUN if success == total else _WAIT


def _all_failed(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    if success or skipped:
        return _SKIP
    return _RUN if failed == total else _WAIT


def _all_done(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    return _RUN if success + failed + skipped == total else _WAIT


def _all_skipped(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    if success or failed:
        return _SKIP
    return _RUN if skipped == total else _WAIT


def _one_failed(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    if failed or not total:
        return _RUN
    return _SKIP if success + skipped == total else _WAIT


def _one_success(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    if success or not total:
        return _RUN
    if failed + skipped < total:
        return _WAIT
    return _SKIP if skipped == total else _UPSTREAM_FAILED  # S82


def _one_done(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    # A parent that never ran (skipped, upstream_failed) is not one that is done.
    if success or failed > upstream or not total:
        return _RUN
    return _SKIP if upstream + skipped == total else _WAIT


def _none_failed(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    if failed:
        return _UPSTREAM_FAILED
    return _RUN if success + skipped == total else _WAIT  # S83: skips do not cascade


def _none_skipped(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    if skipped:
        return _SKIP
    return _RUN if success + failed == total else _WAIT


def _none_failed_min_one_success(
    total: int, success: int, failed: int, upstream: int, skipped: int
) -> Verdict:
    if failed:
        return _UPSTREAM_FAILED
    if success + skipped < total:
        return _WAIT
    return _RUN if success or not total else _SKIP


def _all_done_min_one_success(
    total: int, success: int, failed: int, upstream: int, skipped: int
) -> Verdict:
    if skipped:  # a skipped parent is not done in the sense of this rule (Airflow 3.1+)
        return _SKIP
    if success + failed < total:
        return _WAIT
    return _RUN if success or not total else _UPSTREAM_FAILED


def _always(total: int, success: int, failed: int, upstream: int, skipped: int) -> Verdict:
    return _RUN


# `all_done_setup_success` is `all_done` for a task without setup parents; with them, evaluate().
RULES: Final[dict[TriggerRule, Rule]] = {
    "all_success": _all_success,
    "all_failed": _all_failed,
    "all_done": _all_done,
    "all_skipped": _all_skipped,
    "one_failed": _one_failed,
    "one_success": _one_success,
    "one_done": _one_done,
    "none_failed": _none_failed,
    "none_skipped": _none_skipped,
    "none_failed_min_one_success": _none_failed_min_one_success,
    "all_done_min_one_success": _all_done_min_one_success,
    "all_done_setup_success": _all_done,
    "always": _always,
}


def evaluate(rule: TriggerRule, counts: Counts) -> Verdict:
    """What ``rule`` says about a task whose direct parents stand at ``counts``.

    Pure; the verdict on the same counts never changes. WAIT is only returned while a parent is
    unfinished.

    Raises:
        KeyError: no such rule; authoring refuses it before it gets here (S77).
    """
    total, success, failed, upstream, skipped, removed, setups, setup_success, setup_skipped = (
        counts
    )
    verdict = RULES[rule](total - removed, success, failed + upstream, upstream, skipped)
    if verdict is _RUN and setups and not setup_success and rule == "all_done_setup_success":
        return _SKIP if setup_skipped == setups else _UPSTREAM_FAILED
    return verdict
