"""Design rule 1: only two modules write the state of a task instance or a run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.sources import modules

WRITERS = {"roost.models.transitions", "roost.models.expansion"}
_TABLE = r"(?:\w+\.)?\"?(?:task_instance|dag_run|\{\})\"?(?!\w)"
_UPDATE = re.compile(rf"\bUPDATE\s+(?:ONLY\s+)?{_TABLE}.*?\bSET\b(.*)", re.I | re.S)
_INSERT = re.compile(rf"\b(?:INSERT|REPLACE)\s+(?:OR\s+\w+\s+)?INTO\s+{_TABLE}", re.I | re.S)
_SET_ENDS = re.compile(r"\b(?:WHERE|FROM|RETURNING)\b", re.I)
_STATE = re.compile(r"(?<![\w.])\"?state\"?\s*=|\{\}", re.I)
_TABLES = {"task_instance", "dag_run"}


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string that stands in the code; what an f-string fills in reads ``{}``.

    Names of the module's own string constants read as their text.
    """
    known = dict(_constants(tree))
    inner: set[int] = set()
    for node in ast.walk(tree):
        if id(node) not in inner and (text := _text(node, known)) is not None:
            inner.update(map(id, ast.walk(node)))
            yield text


def _constants(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in getattr(tree, "body", ()):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                yield name, text


def _text(node: ast.AST, known: dict[str, str]) -> str | None:
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.FormattedValue(value=ast.Name(id=name)):
            return known.get(name)
        case ast.JoinedStr(values=values):
            return "".join(_text(value, known) or "{}" for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = (_text(left, known), _text(right, known))
            return None if parts == (None, None) else "".join(part or "{}" for part in parts)
    return None


def _writes_in_sql(text: str) -> bool:
    if _INSERT.search(text):
        return True
    found = _UPDATE.search(text)
    return found is not None and bool(_STATE.search(_SET_ENDS.split(found.group(1))[0]))


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _writes_by_builder(node: ast.AST) -> bool:
    """``update(task_instance)``, ``tables.dag_run.insert()`` and the like."""
    if not isinstance(node, ast.Call) or _name(node.func) not in {"update", "insert"}:
        return False
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    named = [*node.args[:1], *([owner] if owner else [])]
    return any(_name(expression) in _TABLES for expression in named)


def writers(source: ast.AST) -> list[str]:
    """What in this source could write a state."""
    found = [text for text in strings(source) if _writes_in_sql(text)]
    return found + [ast.unparse(node) for node in ast.walk(source) if _writes_by_builder(node)]


def test_nobody_else_writes_a_state() -> None:
    found = {str(m.path): writers(m.tree) for m in modules() if m.name not in WRITERS}
    assert {path: what for path, what in found.items() if what} == {}


def test_the_writers_are_where_we_think() -> None:
    found = {module.name for module in modules() if writers(module.tree)}
    assert found == WRITERS


@pytest.mark.parametrize(
    "planted",
    [
        "Sql('UPDATE task_instance SET state = :s WHERE id = :id')",
        "Sql('update dag_run as r set note = 1, state = :s from x')",
        "Sql('UPDATE task_instance AS t ' 'SET version = 1, ' 'state=1')",
        "Sql('UPDATE task_instance ' + where + ' SET state = 1')",
        "f'UPDATE {table} SET state = 1 WHERE id = 1'",
        "f'UPDATE dag_run SET {column} = 1'",
        "TABLE = 'dag_run'\nf'UPDATE {TABLE} SET state = 1'",
        "'INSERT INTO task_instance (id) VALUES (1)'",
        "'INSERT OR REPLACE INTO dag_run (id) VALUES (1)'",
        "update(task_instance).values(state='success')",
        "tables.dag_run.insert()",
    ],
)
def test_a_planted_writer_is_caught(planted: str) -> None:
    assert writers(ast.parse(planted))


@pytest.mark.parametrize(
    "innocent",
    [
        "'UPDATE dag_run SET changed = TRUE WHERE state = :s'",
        "'UPDATE task_instance SET prev_state = 1 WHERE id = 1'",
        "'UPDATE task_instance_note SET state = 1'",
        "'SELECT state FROM task_instance WHERE state = 1'",
        "states.update(dag_runs)",
        "TABLE = 'job'\nf'INSERT INTO {TABLE} VALUES (1)'",
    ],
)
def test_reading_a_state_is_nobodys_business(innocent: str) -> None:
    assert writers(ast.parse(innocent)) == []
