"""Alembic's environment: runs on the connection that :mod:`roost.migrations.api` hands over.

All migrations of one command are one transaction on both databases (a migration that cannot be,
such as an index made concurrently, says so with ``autocommit_block``). SQLite changes tables in
batch mode: it copies them, for it can alter little in place.
"""

from __future__ import annotations

from alembic import context

from roost.models.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
