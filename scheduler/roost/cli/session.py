"""What a command that asks the database opens: configuration, engine, one reading transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from roost.models.engine import Tx, open_engine, read
from roost.models.queries import jobs
from roost.models.schema import require_schema
from roost.support.config import Config, load_config
from roost.support.doorbell import Doorbell
from roost.support.processes import host_id

__all__ = ["database", "engine_of", "reading", "ring"]


def engine_of(config: Config) -> Engine:
    """The engine of the configured database, whatever schema it has."""
    return open_engine(
        config.database.url, sqlite_synchronous=config.database.sqlite_synchronous, pool_size=1
    )


@contextmanager
def database() -> Iterator[tuple[Config, Engine]]:
    """The configuration and an engine whose schema is checked; closed at the end.

    Raises:
        ConfigError: a setting is wrong.
        SchemaError: the database is away, or its schema is not this version's.
    """
    config = load_config()
    engine = engine_of(config)
    try:
        require_schema(engine)
        yield config, engine
    finally:
        engine.dispose()


@contextmanager
def reading() -> Iterator[tuple[Config, Tx]]:
    """The configuration and one transaction that only reads."""
    with database() as (config, engine), read(engine) as tx:
        yield config, tx


def ring(config: Config, engine: Engine, kind: str = "scheduler") -> None:
    """Wake the daemons of a kind, wherever they are; who does not hear it sees it by polling."""
    with Doorbell(config.run_dir) as bell:
        bell.ring(kind)
    if engine.dialect.name == "postgresql":
        with suppress(SQLAlchemyError), read(engine) as tx:  # what is to be seen is committed
            jobs.ring_elsewhere(tx, kind, host_id(), str(config.run_dir))
