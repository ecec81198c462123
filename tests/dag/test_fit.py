"""The short way of telling that kwargs fit an ``__init__`` says no more than the long one."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag.deferral import _class_named, _fits_plainly
from roost.dag.trigger import BaseTrigger
from roost.triggers import DateTimeTrigger, FileTrigger

_NAMES = ("a", "b", "c", "d")


def _kind(parameters: str) -> type[BaseTrigger]:
    scope: dict[str, Any] = {}
    exec(f"def __init__({parameters}): pass", scope)  # noqa: S102 - our own text
    body = {"__init__": scope["__init__"]}
    return cast("type[BaseTrigger]", ABCMeta("Made", (BaseTrigger,), body))


def _binds(kind: type[BaseTrigger], names: set[str]) -> bool:
    try:
        inspect.signature(kind).bind(**dict.fromkeys(names))
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(
    ("parameters", "is_plain"),
    [
        ("self", True),
        ("self, a", True),
        ("self, a, b=1", True),
        ("self, a=0, b=1, *, c, d=2", True),
        ("self, *, a", True),
        ("self, a, /, b", False),
        ("self, *a, b", False),
        ("*a, b=1", False),
        ("self, a, **b", False),
    ],
)
@given(names=st.sets(st.sampled_from(_NAMES)))
def test_the_short_way_says_no_more_than_the_long_one(
    parameters: str, is_plain: bool, names: set[str]
) -> None:
    kind = _kind(parameters)
    fits = _fits_plainly(kind, dict.fromkeys(names))
    assert not fits or _binds(kind, names)
    if is_plain:
        assert fits is _binds(kind, names)


def test_other_ways_to_be_made_take_the_long_way() -> None:
    class Made(DateTimeTrigger):
        def __new__(cls, *_: Any) -> Made:
            return super().__new__(cls)

    assert not _fits_plainly(Made, {"moment": None})
    assert _fits_plainly(DateTimeTrigger, {"moment": None})


@pytest.mark.parametrize("kind", [DateTimeTrigger, FileTrigger])
def test_our_own_are_named_by_their_package(kind: type[BaseTrigger]) -> None:
    assert _class_named(f"roost.triggers.{kind.__name__}", kind) is kind
    assert _class_named(f"roost.triggers:{kind.__name__}", kind) is kind
