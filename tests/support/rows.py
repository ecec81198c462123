"""Which test covers which row of the semantics: read from the names and docstrings of tests.

A test cites a row as ``S78``, ``H17``, ``D6`` or ``N3`` in its docstring, a range as ``S31-S34``,
or as ``_s78_`` in its name. The invariants of the state model have numbers of their own and are
cited as "invariant S4"; they are not rows.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROWS", "covered", "table"]

TESTS = Path(__file__).parents[1]
ROWS = [
    f"{letter}{number}"
    for letter, first, last in (("S", 1, 109), ("H", 8, 28), ("N", 1, 12), ("D", 1, 24))
    for number in range(first, last + 1)
]
_CITED = re.compile(r"(?<!invariant )(?<!invariants )\b([SHND])(\d+)\b(?:\s?-\s?\1?(\d+)\b)?")
_NAMED = re.compile(r"(?<=_)([shnd])(\d+)(?=_|$)")
_NAMED_INVARIANTS = re.compile(r"invariant(_s\d+)+")
_INVARIANTS = re.compile(r"\binvariants? S\d+(?:(?:, | and |-)S\d+)*")


def _cited(text: str) -> Iterator[str]:
    for letter, first, last in _CITED.findall(_INVARIANTS.sub("", text)):
        for number in range(int(first), int(last or first) + 1):
            yield f"{letter}{number}"


def _tests_of(tree: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    """Id and citing text of every test below ``tree``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _tests_of(node, f"{prefix}::{node.name}")
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            name = _NAMED_INVARIANTS.sub("", node.name)
            named = " ".join(f"{letter.upper()}{n}" for letter, n in _NAMED.findall(name))
            yield f"{prefix}::{node.name}", f"{named} {ast.get_docstring(node) or ''}"


def covered() -> dict[str, list[str]]:
    """The tests that cite each row, as pytest names them without parameters."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        relative = path.relative_to(TESTS.parent).as_posix()
        for test, text in _tests_of(ast.parse(path.read_text()), relative):
            for row in dict.fromkeys(_cited(text)):
                found[row].append(test)
    return found


def table(outcomes: dict[str, set[str]]) -> Iterator[str]:
    """One line a row: its id, how its tests went, and the first of them.

    Args:
        outcomes: how each test went in this session, e.g. ``passed``, by its name without
            parameters; one that did not run is absent.
    """
    found = covered()
    for row in ROWS:
        tests = found.get(row, [])
        went = [outcomes.get(test, set()) for test in tests]
        words = {word for words in went for word in words} or {"not run"}
        said = "failed" if "failed" in words else "passed" if "passed" in words else words.pop()
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        yield f"{row:<5} {said:<8} {tests[0] if tests else 'NO TEST'}{more}"
