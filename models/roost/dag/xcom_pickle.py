"""Pickled XComs (S53): the one place that pickles, loaded only with ``core.xcom_pickling``.

Reading a pickle runs whatever code its writer chose, so this is loaded by task processes alone,
which run the code of DAG files anyway.
"""

from __future__ import annotations

import base64
import pickle
from typing import Any

from roost.exceptions import ValueNotStorable

__all__ = ["dump", "load"]


def dump(name: str, value: Any) -> bytes:
    """A value, pickled, in base64.

    Raises:
        ValueNotStorable: it cannot be pickled either.
    """
    try:
        return base64.b64encode(pickle.dumps(value))
    except Exception as error:  # a value's own __reduce__ may raise anything
        raise ValueNotStorable(f"{name} cannot be pickled: {error}") from error


def load(data: bytes) -> Any:
    """The value that :func:`dump` was given."""
    return pickle.loads(base64.b64decode(data, validate=True))  # noqa: S301 - switched on
