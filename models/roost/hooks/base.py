"""BaseHook: connections by id, for hooks and for scripts (S45, S50)."""

from __future__ import annotations

import logging

from roost.dag.connection import Connection

__all__ = ["BaseHook"]


class BaseHook:
    """Base of hooks. A subclass names its ``default_conn_id`` (S50)."""

    default_conn_id = ""

    @classmethod
    def get_connection(cls, conn_id: str | None = None) -> Connection:
        """The connection ``conn_id``, default: the hook's own default id.

        Raises:
            NotFound: there is none (S49).
        """
        return Connection.get(conn_id or cls.default_conn_id)

    @classmethod
    async def get_connection_async(cls, conn_id: str | None = None) -> Connection:
        """The same for the code of triggers, which must not block: ``await`` it."""
        return await Connection.get_async(conn_id or cls.default_conn_id)

    aget_connection = get_connection_async  # as Airflow 3 calls it

    @property
    def log(self) -> logging.Logger:
        """Logger whose lines appear in the task's log."""
        return logging.getLogger(f"roost.task.{type(self).__name__}")
