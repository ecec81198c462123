"""``macros`` in templates: a few functions on dates and the usual modules."""

from __future__ import annotations

import datetime as _datetime
import json
import random as _random
import time
import uuid
from datetime import timedelta
from typing import Any

__all__ = [
    "datetime",
    "ds_add",
    "ds_format",
    "json",
    "random",
    "time",
    "timedelta",
    "uuid",
]

datetime = _datetime.datetime


class _Random:
    """``macros.random()`` draws a number; the functions of the module are its attributes."""

    def __call__(self) -> float:
        return _random.random()  # noqa: S311 - no secret

    def __getattr__(self, name: str) -> Any:
        if name not in _random.__all__:
            raise AttributeError(name)
        return getattr(_random, name)


random = _Random()


def ds_add(ds: str, days: int) -> str:
    """``ds`` (YYYY-MM-DD) plus ``days``, which may be negative."""
    return (_datetime.date.fromisoformat(ds) + timedelta(days=days)).isoformat()


def ds_format(ds: str, input_format: str, output_format: str) -> str:
    """``ds`` read with one strftime format and written with another."""
    # A date without a time of day has no zone to speak of.
    return datetime.strptime(ds, input_format).strftime(output_format)
