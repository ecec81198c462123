"""Names of DAGs, tasks and groups: what they may hold, checked where they are given."""

from __future__ import annotations

import re

from roost.exceptions import DagError

__all__ = ["check_id"]

_ID = re.compile(r"[\w.:+-]{1,250}", re.ASCII)


def check_id(value: object, what: str) -> str:
    """``value`` if it is an id, i.e. 1 to 250 of ``A-Z a-z 0-9 _ . : + -``.

    Args:
        value: the name that was given.
        what: what it names, for the message, e.g. ``task_id``.

    Raises:
        DagError: it is not a string, is empty, too long or holds another character.
    """
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise DagError(f"{what} {value!r} must be 1 to 250 letters, digits or . _ : + - characters")
