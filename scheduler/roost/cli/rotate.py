"""``roost rotate-encryption-key``: everything that is encrypted, under the newest key."""

from __future__ import annotations

import click
from sqlalchemy import Engine

from roost.cli.base import Command
from roost.cli.session import database
from roost.exceptions import DecryptionError
from roost.models.engine import Tx, read, transact
from roost.models.queries.secrets import STORES, Batch, Store, count, rotate_batch
from roost.support.crypto import Keyring, keyring_of

__all__ = ["rotate_encryption_key", "rotate_fernet_key"]

_BATCH = 100


def _rotate(dry_run: bool, batch: int) -> None:
    """Encrypt all secrets anew with the newest key.

    Put a new key before the old ones, with a comma, in security.encryption_key or in
    encryption.key; run this; then take the old ones away. Daemons read encryption.key again by
    themselves, another source at their start. It may be stopped and run again at any time; rows
    under the newest key are left alone, and rows that an older Roost stored plain are encrypted.
    """
    unreadable: list[str] = []
    with database() as (config, engine):
        keys = keyring_of(config)
        keys.check()
        for store in STORES:
            unreadable += _store(engine, store, keys, dry_run, batch)
    for line in unreadable:
        click.echo(line, err=True)
    if unreadable:
        raise DecryptionError(
            f"{len(unreadable)} of the rows cannot be decrypted and stay as they are; "
            "keep the old keys until they are set anew"
        )


def _store(engine: Engine, store: Store, keys: Keyring, dry_run: bool, size: int) -> list[str]:
    """One table; the error lines of what cannot be decrypted."""
    with read(engine) as tx:
        total = count(tx, store)
    last, seen, changed = store.first, 0, 0
    unreadable: list[str] = []
    while True:
        after = last

        def step(tx: Tx, after: str | int = after) -> Batch:
            return rotate_batch(tx, store, keys, after, size, dry_run=dry_run)

        done = transact(engine, step)
        seen, changed = seen + done.seen, changed + done.changed
        unreadable += done.unreadable
        if done.last is None or done.seen < size:
            break
        last = done.last
        if seen < total:
            click.echo(f"{store.word}s: {seen} of {total}", err=True)
    if store.passing and not seen:
        return unreadable
    what = "would be encrypted anew" if dry_run else "encrypted anew"
    left = seen - changed - len(unreadable)
    click.echo(f"{store.word}s: {changed} {what}, {left} under the newest key already")
    return unreadable


def _command(name: str) -> click.Command:
    command = click.command(name, cls=Command)(_rotate)
    for option in (
        click.Option(
            ["--batch"], type=click.IntRange(1, 10_000), default=_BATCH, show_default=True,
            help="Rows in one transaction.",
        ),
        click.Option(["--dry-run"], is_flag=True, help="Only say what would be done."),
    ):  # fmt: skip
        command.params.insert(0, option)
    return command


rotate_encryption_key = _command("rotate-encryption-key")
rotate_fernet_key = _command("rotate-fernet-key")
