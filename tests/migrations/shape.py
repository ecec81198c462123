"""The exact shape of a database, as its own catalog tells it: what Alembic's comparison leaves out
(CHECKs, predicates of partial indexes, storage options, seeded rows) included."""

from __future__ import annotations

import re

from sqlalchemy import Connection, text

__all__ = ["rows", "shape"]

_POSTGRES = [
    (
        "SELECT 'column', table_name, column_name, data_type, character_maximum_length,"
        " is_nullable, column_default FROM information_schema.columns WHERE table_schema = 'public'"
    ),
    (
        "SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
        " FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
    ),
    "SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    (
        "SELECT 'storage', relname, reloptions::text FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ),
]


def shape(connection: Connection) -> set[tuple[str, ...]]:
    """Every table, column, constraint and index with its full definition."""
    if connection.dialect.name == "postgresql":
        return {
            tuple(map(str, row)) for query in _POSTGRES for row in connection.execute(text(query))
        }
    found: set[tuple[str, ...]] = set()
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    for kind, name, sql in connection.execute(text(query)):
        # The order of a table's clauses depends on who wrote them; the set of clauses must not.
        words = re.sub(r"\s+", " ", sql.replace('"', ""))
        found |= {(kind, name, clause) for clause in _clauses(words)}
    return found


def _clauses(sql: str) -> list[str]:
    """The parts of ``CREATE … ( a, b, … ) …`` split at the commas of the first level."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(sql):
        depth += {"(": 1, ")": -1}.get(char, 0)
        opened = char == "(" and depth == 1
        closed = char == ")" and depth == 0
        if opened or closed or (char == "," and depth == 1):
            parts.append(sql[start:at].strip())
            start = at + 1
    return [*parts, sql[start:].strip()]


def rows(connection: Connection) -> list[tuple[object, ...]]:
    """What a new database holds."""
    queries = ("SELECT * FROM pool", "SELECT version_num FROM alembic_version")
    return [tuple(row) for query in queries for row in connection.execute(text(query))]
