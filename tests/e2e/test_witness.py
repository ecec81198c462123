"""The witness itself: it must see an overlap when there is one."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.witness import bodies, most_at_once, overlapping


def test_bodies_are_paired_by_dispatch(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("a plain begin 1 10\na plain begin 2 30\na plain end 2 40\n")
    found = bodies(notes)
    assert [(body.dispatch_id, body.ended) for body in found] == [(1, None), (2, 40)]
    assert overlapping(found) == []


def test_an_overlap_is_seen(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text(
        "a plain begin 1 10\na plain begin 2 20\na plain end 1 25\na plain end 2 40\n"
        "b plain begin 3 11\nb plain end 3 12\n"
    )
    assert [pair[1].dispatch_id for pair in overlapping(bodies(notes))] == [2]


def test_the_most_at_once_is_counted_from_moves() -> None:
    moves = [(1, "queued"), (2, "queued"), (1, "running"), (2, "success"), (3, "queued")]
    assert most_at_once(moves, {"queued", "running"}) == 2
