"""Every row of the semantics has a test that names it; the table ends the suite's output."""

from __future__ import annotations

from tests.support import rows


def test_every_row_has_a_test() -> None:
    found = rows.covered()
    missing = [row for row in rows.ROWS if row not in found]
    assert not missing, f"no test names {', '.join(missing)}: cite the row in a docstring"


def test_the_table_has_a_line_for_each_row_and_says_how_its_tests_went() -> None:
    found = rows.covered()["S78"]
    lines = list(rows.table({test: {"passed"} for test in found}))
    assert len(lines) == len(rows.ROWS) == 166
    (line,) = (line for line in lines if line.startswith("S78 "))
    assert "passed" in line and found[0] in line
    assert "not run" in lines[0]
    failed = rows.table({found[0]: {"failed", "passed"}})
    assert any(line.startswith("S78   failed") for line in failed)


def test_an_invariant_is_not_a_row() -> None:
    assert list(rows._cited("invariant S4: once; invariants S2, S3 and S5; E3, S31-S33, D9")) == [
        "S31", "S32", "S33", "D9",
    ]  # fmt: skip
