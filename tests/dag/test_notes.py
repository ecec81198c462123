"""``BaseTrigger.note``: the black box of a wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from roost.support.clock import from_us
from roost.triggers import DateTimeTrigger


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_the_last_ten_notes_are_kept_and_equal_ones_are_one(texts: list[str]) -> None:
    trigger = DateTimeTrigger(from_us(0))
    runs: list[list[object]] = []
    for text in texts:
        trigger.note(text)
        if runs and runs[-1][0] == text:
            runs[-1][1] = int(str(runs[-1][1])) + 1
        else:
            runs.append([text, 1])
    found = trigger.last_notes()
    assert [[text, count] for text, _, _, count in found] == runs[-10:]
    assert all(first <= last for _, first, last, _ in found)


def test_a_note_is_short() -> None:
    trigger = DateTimeTrigger(from_us(0))
    assert trigger.last_notes() == []
    trigger.note("x" * 10_000)
    assert [len(text) for text, *_ in trigger.last_notes()] == [500]
