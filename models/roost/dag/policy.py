"""What authors may decide by code of their own: who goes first, and whether to try again.

Weights are computed where the DAG file is parsed, retries where the task has failed; the
scheduler sees numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.operator import BaseOperator

__all__ = ["PriorityWeightStrategy", "RetryDecision", "RetryPolicy"]

RetryDecision = Literal["retry", "fail"] | timedelta
"""Try again after the usual delay, not at all, or after this one."""


class PriorityWeightStrategy:
    """A weight rule of one's own (H24): ``weight_rule=MyStrategy()``.

    It is asked once for each task, when the DAG file is parsed, and must depend on nothing but
    the task and its DAG.
    """

    def get_weight(self, task: BaseOperator) -> int:
        """The effective priority weight of ``task``: who has more goes first."""
        raise NotImplementedError(f"{type(self).__name__} has no get_weight() method")


class RetryPolicy:
    """What follows from an exception of a task (H13): ``retry_policy=RetryPolicy({…})``.

    Args:
        rules: by class of exception: ``"retry"``, ``"fail"``, or a timedelta after which to try
            again. The nearest class of the exception's wins. What has no rule is retried as
            usual. No rule allows more tries than ``retries``.

    Raises:
        DagError: a rule is none of these.
    """

    def __init__(self, rules: Mapping[type[BaseException], RetryDecision]) -> None:
        self.rules = dict(rules)
        for kind, decision in self.rules.items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise DagError(f"RetryPolicy: {kind!r} is not a class of exceptions")
            _check(decision)

    def decide(self, error: BaseException, try_number: int) -> RetryDecision:
        """What to do after ``error``; write your own in a subclass.

        Args:
            error: what the task raised.
            try_number: of the try that failed, from 1.
        """
        for kind in type(error).__mro__:
            if kind in self.rules:
                return self.rules[kind]
        return "retry"

    def checked(self, error: BaseException, try_number: int) -> RetryDecision:
        """As :meth:`decide`.

        Raises:
            DagError: it decided on something that there is not.
        """
        decision = self.decide(error, try_number)
        _check(decision)
        return decision


def _check(decision: object) -> None:
    if decision in ("retry", "fail"):
        return
    if not isinstance(decision, timedelta) or decision < timedelta(0):
        raise DagError(f"RetryPolicy: 'retry', 'fail' or a timedelta, not {decision!r}")
