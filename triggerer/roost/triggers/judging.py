"""Whether what was found is what a trigger or sensor waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from roost.exceptions import RoostException

__all__ = ["Judgement", "checked_values", "judge", "told"]

Judgement = Literal["success", "failed"]


def judge(
    found: Any, success_values: Sequence[Any] | None, failure_values: Sequence[Any]
) -> Judgement | None:
    """What a value means; None: not yet.

    Args:
        found: the value.
        success_values: those to wait for; None: everything but NULL, 0, false and empty.
        failure_values: those at which waiting is in vain.
    """
    if _among(found, failure_values):
        return "failed"
    if success_values is None:
        return None if found in (None, 0, "0", "", [], {}) else "success"
    return "success" if _among(found, success_values) else None


def _among(found: Any, values: Sequence[Any]) -> bool:
    # 1 == True in Python, in JSON they differ.
    return any(found == value and (found is True) == (value is True) for value in values)


def checked_values(name: str, values: Any) -> list[Any]:
    """A list of values that a user gave.

    Raises:
        RoostException: it is none.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | set | frozenset):
        raise RoostException(f"{name} must be a list of values, not {values!r}")
    return list(values)


def told(judgement: Judgement, found: Any, what: str) -> None:
    """Raise when waiting was in vain.

    Raises:
        RoostException: the judgement is ``failed``.
    """
    if judgement == "failed":
        raise RoostException(f"{what} gave {found!r}, which is among failure_values")
