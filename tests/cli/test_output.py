"""Four formats, one set of rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from roost.cli.output import emit

ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": 'a "quoted": #x', "on": True, "at": None, "list": ["x", "y"], "f": 0.5},
    {"id": 2, "name": "two\nlines\tü", "on": False, "at": "2026-01-01", "list": [], "f": None},
]
COLUMNS = ("id", "name", "on", "at", "list", "f")


def test_json_is_an_array_of_objects_with_the_columns_as_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit(ROWS, COLUMNS, "json")
    assert json.loads(capsys.readouterr().out) == ROWS


def test_json_and_yaml_of_nothing_are_an_empty_array(capsys: pytest.CaptureFixture[str]) -> None:
    for output in ("json", "yaml"):
        emit([], COLUMNS, output)
        assert capsys.readouterr().out == "[]\n"


def test_yaml_holds_json_scalars(capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, COLUMNS, "yaml")
    blocks = capsys.readouterr().out.split("- ")[1:]
    decoded = [
        {
            key: json.loads(value)
            for key, _, value in (line.strip().partition(": ") for line in lines)
        }
        for lines in (block.strip().split("\n") for block in blocks)
    ]
    assert decoded == ROWS


def test_plain_is_a_header_and_one_tab_separated_line_a_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit(ROWS, COLUMNS, "plain")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == list(COLUMNS)
    assert lines[1].split("\t") == ["1", 'a "quoted": #x', "true", "", "x, y", "0.500"]
    assert lines[2].split("\t")[1] == "two lines ü"
    assert len(lines) == 3


def test_table_aligns_and_keeps_the_lines_of_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"id": 1, "error": "first\nsecond"}, {"id": 22, "error": ""}], ("id", "error"), "table")
    assert capsys.readouterr().out.splitlines() == [
        "id | error",
        "---+-------",
        "1  | first",
        "   | second",
        "22 |",
    ]


def test_table_of_nothing_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    emit([], COLUMNS, "table")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "No rows.\n")
