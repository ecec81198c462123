"""Names for values that DAG files write as text elsewhere."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TriggerRule"]


class TriggerRule(StrEnum):
    """The trigger rules (S77); each is also the text of its value, e.g. ``"all_done"``."""

    ALL_SUCCESS = "all_success"
    ALL_FAILED = "all_failed"
    ALL_DONE = "all_done"
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    ALL_DONE_SETUP_SUCCESS = "all_done_setup_success"
    ALL_SKIPPED = "all_skipped"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    ONE_DONE = "one_done"
    NONE_FAILED = "none_failed"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    #: The same under its older name.
    NONE_FAILED_OR_SKIPPED = "none_failed_min_one_success"
    NONE_SKIPPED = "none_skipped"
    ALWAYS = "always"
