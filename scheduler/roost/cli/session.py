"""What a command that asks the database opens: configuration, engine, one reading transaction."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from roost.exceptions import NotFound
from roost.models.engine import Tx, open_engine, read
from roost.models.schema import require_schema
from roost.support.config import Config, load_config
from roost.support.doorbell import Doorbell

__all__ = ["database", "engine_of", "not_found", "reading", "ring"]


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


def ring(config: Config, kind: str = "scheduler") -> None:
    """Wake the daemons of a kind on this host; those elsewhere see it when they poll."""
    with Doorbell(config.run_dir) as bell:
        bell.ring(kind)


def not_found(what: str, name: str, known: Iterable[str], remedy: str) -> NotFound:
    """The error for a name that does not exist, with the nearest one that does."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else remedy
    return NotFound(f"there is no {what} {name!r}; {hint}")
