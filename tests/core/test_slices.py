"""Slices of a heap: small at first, never too large, and nothing is left behind."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from roost.support.slices import Slices

_SIZES = st.tuples(st.integers(1, 50), st.integers(0, 2_000)).map(lambda s: (s[0], s[0] + s[1]))


@given(sizes=_SIZES, heap=st.integers(0, 20_000))
def test_a_heap_is_taken_whole_and_in_growing_slices(sizes: tuple[int, int], heap: int) -> None:
    first, most = sizes
    slices = Slices(first, most)
    taken: list[int] = []
    more = True
    while more:
        count = min(slices.size, heap - sum(taken))
        taken.append(count)
        more = slices.took(count)
    assert sum(taken) == heap
    assert taken[0] <= first
    assert max(taken) <= most
    assert all(after == min(2 * before, most) for before, after in pairwise(taken[:-1]))


def test_after_a_pause_the_first_is_small_again() -> None:
    slices = Slices(2, 8)
    counts = (2, 4, 8, 8, 7, 1)
    assert [(slices.at_first, slices.size, slices.took(count)) for count in counts] == [
        (True, 2, True),
        (False, 4, True),
        (False, 8, True),
        (False, 8, True),
        (False, 8, False),
        (True, 2, False),
    ]


def test_a_slice_that_was_cut_is_not_the_last() -> None:
    slices = Slices(2, 8)
    counts = ((2, False), (1, True), (4, True), (3, True), (3, False))
    assert [(slices.size, slices.took(*count)) for count in counts] == [
        (2, True),
        (4, True),
        (4, True),
        (8, True),
        (8, False),
    ]
    assert slices.at_first
