"""``roost pools import`` and ``export``: JSON in the shape of Airflow's commands (S37)."""

from __future__ import annotations

import json
from typing import Annotated, Final

import click
import msgspec

from roost.cli.base import Command
from roost.cli.secret_files import read_object, read_text
from roost.cli.session import database, reading, ring
from roost.exceptions import RoostException
from roost.models.engine import Tx, transact
from roost.models.queries.edits import set_pool
from roost.models.queries.listing import pool_rows
from roost.models.slots import WHOLE

__all__ = ["MAX_NAME", "MAX_SLOTS", "export", "import_", "is_pool_name"]

MAX_NAME: Final = 250
MAX_SLOTS: Final = 2**31 - 1


def is_pool_name(name: str) -> bool:
    """Whether a pool can have this name in any database."""
    return bool(name.strip()) and len(name) <= MAX_NAME and name.isprintable()


class _Pool(msgspec.Struct, forbid_unknown_fields=True):
    slots: Annotated[int, msgspec.Meta(ge=-1, le=MAX_SLOTS)]
    description: str = ""
    include_deferred: bool | None = None
    deferred_percent: Annotated[int, msgspec.Meta(ge=0, le=WHOLE)] | None = None

    @property
    def percent(self) -> int | None:
        """How much of its slots a deferred task holds; None: as the pool has it."""
        if self.deferred_percent is not None or self.include_deferred is None:
            return self.deferred_percent
        return WHOLE if self.include_deferred else 0


@click.command("import", cls=Command)
@click.argument("file")
def import_(file: str) -> None:
    """Create and change pools from a JSON file.

    {"pool": {"slots": 5, "description": "…", "include_deferred": false}}, as `roost pools export`
    and Airflow write it; "deferred_percent": 25 says how much of its slots a deferred task holds.
    A pool that the file does not name stays as it is. All or nothing. FILE - is standard input.
    """
    given = {name: _read(file, name, one) for name, one in _entries(file).items()}
    with database() as (config, engine):

        def step(tx: Tx) -> int:
            return sum(
                set_pool(
                    tx,
                    name,
                    slots=one.slots,
                    deferred_percent=one.percent,
                    description=one.description,
                )
                for name, one in given.items()
            )

        new = transact(engine, step)
        ring(config, engine)
    click.echo(f"{len(given)} pools imported, {new} of them new")


def _entries(file: str) -> dict[str, object]:
    entries = read_object(file, read_text(file))
    if not entries:
        raise RoostException(f"{file} holds no pool")
    return entries


def _read(file: str, name: str, entry: object) -> _Pool:
    if not is_pool_name(name):
        raise RoostException(f"{file}: a pool's name has 1 to {MAX_NAME} printable characters")
    try:
        return msgspec.convert(entry, _Pool)
    except msgspec.ValidationError as error:
        raise RoostException(
            f'{file}: pool {name!r}: {error}; write {{"slots": 5, "description": "…"}}'
        ) from None


@click.command(cls=Command)
@click.argument("file")
def export(file: str) -> None:
    """Write all pools to a JSON file.

    What `roost pools import` reads. FILE - is standard output.
    """
    with reading() as (_, tx):
        pools = {
            pool.pool: {
                "slots": pool.slots,
                "description": pool.description,
                "include_deferred": pool.deferred_percent > 0,
                "deferred_percent": pool.deferred_percent,
            }
            for pool, _ in pool_rows(tx)
        }
    text = json.dumps(pools, indent=2, ensure_ascii=False) + "\n"
    if file == "-":
        click.echo(text, nl=False)
        return
    try:
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise RoostException(f"{file} cannot be written: {error.strerror}") from None
    click.echo(f"wrote {len(pools)} pools to {file}")
