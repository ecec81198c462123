"""What all tables share: the naming of constraints, the types of keys and ids."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, MetaData, String, text
from sqlalchemy.sql.expression import TextClause

from roost.models.states import RunState, State

__all__ = ["ID", "KEY", "metadata", "one_of", "partial_index"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = String(250)
# SQLite numbers rows by itself only for a column typed INTEGER.
KEY = BigInteger().with_variant(Integer, "sqlite")


def one_of(column: str, values: type[State] | type[RunState]) -> CheckConstraint:
    """The CHECK that a column holds a member of an enumeration."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def partial_index(name: str, *columns: str | TextClause, where: str, unique: bool = False) -> Index:
    """An index of the rows that meet a condition, on both databases."""
    condition = text(where)
    return Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
