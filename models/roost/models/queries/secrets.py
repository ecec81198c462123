"""Secrets at rest as a whole: which columns are encrypted, and how they get a new key.

:data:`STORES` is the one list of encrypted columns. Where rows may be plain an ``is_encrypted``
column tells how those of a row are to be read; whatever joins the list is rotated too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from roost.exceptions import DecryptionError
from roost.models.engine import Sql, Tx
from roost.support.crypto import Keyring
from roost.support.sealed import as_raw, is_sealed, reopened, text_of
from roost.support.wire import Outcome

__all__ = ["STORES", "Batch", "Store", "any_encrypted", "count", "rotate_batch"]


class Store(NamedTuple):
    """One table that holds secrets.

    Attributes:
        word: what a row is called.
        columns: what is encrypted; a NULL stays one.
        first: less than every key.
        total: counts the rows.
        encrypted: finds a row that is encrypted.
        page: the rows after ``:last``, at most ``:size``: ``id``, the ``name`` for people,
            ``is_encrypted`` and the columns; locked.
        update: writes the columns of ``:id``.
        passing: its rows come and go; where there are none, nothing is said of them.
        reopen: given where a text itself tells whether it is encrypted
            (:mod:`roost.support.sealed`), and one that is not stays so: replaces all tokens in it.
    """

    word: str
    columns: tuple[str, ...]
    first: str | int
    total: Sql
    encrypted: Sql
    page: Sql
    update: Sql
    passing: bool = False
    reopen: Callable[[str, Callable[[str], str]], str] | None = None


def _outcome(text: str, renew: Callable[[str], str]) -> str:
    """What a task deferred with, before the scheduler has seen it, is inside its outcome."""
    outcome = msgspec.json.decode(text, type=Outcome)
    if (spec := outcome.defer) is None:
        return text
    spec.kwargs = as_raw(reopened(text_of(spec.kwargs), renew))
    spec.next_kwargs = as_raw(reopened(text_of(spec.next_kwargs), renew))
    return msgspec.json.encode(outcome).decode()


# In the order in which what a task leaves goes from one to the next: whatever moves on while this
# runs is met again further down.
STORES = (
    Store(
        word="Variable",
        columns=("value",),
        first="",
        total=Sql("SELECT count(*) FROM variable"),
        encrypted=Sql("SELECT 1 FROM variable WHERE is_encrypted LIMIT 1"),
        page=Sql(
            "SELECT key AS id, key AS name, is_encrypted, value FROM variable "
            "WHERE key > :last ORDER BY key LIMIT :size {for_update}"
        ),
        update=Sql("UPDATE variable SET value = :value, is_encrypted = {true} WHERE key = :id"),
    ),
    Store(
        word="Connection",
        columns=("password", "extra"),
        first=0,
        total=Sql("SELECT count(*) FROM connection"),
        encrypted=Sql("SELECT 1 FROM connection WHERE is_encrypted LIMIT 1"),
        page=Sql(
            "SELECT id, conn_id AS name, is_encrypted, password, extra FROM connection "
            "WHERE id > :last ORDER BY id LIMIT :size {for_update}"
        ),
        update=Sql(
            "UPDATE connection SET password = :password, extra = :extra, is_encrypted = {true} "
            "WHERE id = :id"
        ),
    ),
    Store(  # of events from outside; what is left of one whose token was used is empty
        word="Event",
        columns=("payload",),
        first=0,
        total=Sql("SELECT count(*) FROM external_event WHERE payload <> ''"),
        encrypted=Sql("SELECT 1 FROM external_event WHERE payload <> '' LIMIT 1"),
        page=Sql(
            "SELECT id, external_key AS name, {true} AS is_encrypted, payload FROM external_event "
            "WHERE id > :last AND payload <> '' ORDER BY id LIMIT :size {for_update}"
        ),
        update=Sql("UPDATE external_event SET payload = :payload WHERE id = :id"),
        passing=True,
    ),
    Store(  # what the scheduler has not settled yet
        word="Deferral",
        columns=("outcome",),
        first=0,
        total=Sql("SELECT count(*) FROM dispatch WHERE ended_at IS NOT NULL AND NOT settled"),
        encrypted=Sql(
            "SELECT 1 FROM dispatch WHERE ended_at IS NOT NULL AND NOT settled "
            "AND outcome LIKE '%\"gAAAA%' LIMIT 1"
        ),
        page=Sql(
            "SELECT id, id AS name, {true} AS is_encrypted, outcome FROM dispatch "
            "WHERE ended_at IS NOT NULL AND NOT settled AND outcome LIKE '%\"gAAAA%' "
            "AND id > :last ORDER BY id LIMIT :size {for_update}"
        ),
        update=Sql("UPDATE dispatch SET outcome = :outcome WHERE id = :id AND NOT settled"),
        passing=True,
        reopen=_outcome,
    ),
    Store(
        word="Trigger",
        columns=("kwargs", "next_kwargs"),
        first=0,
        total=Sql("SELECT count(*) FROM trigger"),
        encrypted=Sql(
            "SELECT 1 FROM trigger WHERE kwargs LIKE 'gAAAA%' OR next_kwargs LIKE 'gAAAA%' LIMIT 1"
        ),
        page=Sql(
            "SELECT id, id AS name, {true} AS is_encrypted, kwargs, next_kwargs FROM trigger "
            "WHERE id > :last ORDER BY id LIMIT :size {for_update}"
        ),
        update=Sql(
            "UPDATE trigger SET kwargs = :kwargs, next_kwargs = :next_kwargs WHERE id = :id"
        ),
        passing=True,
        reopen=reopened,
    ),
    Store(
        word="Kill",
        columns=("kwargs",),
        first=0,
        total=Sql("SELECT count(*) FROM trigger_kill"),
        encrypted=Sql("SELECT 1 FROM trigger_kill WHERE kwargs LIKE 'gAAAA%' LIMIT 1"),
        page=Sql(
            "SELECT id, id AS name, {true} AS is_encrypted, kwargs FROM trigger_kill "
            "WHERE id > :last ORDER BY id LIMIT :size {for_update}"
        ),
        update=Sql("UPDATE trigger_kill SET kwargs = :kwargs WHERE id = :id"),
        passing=True,
        reopen=reopened,
    ),
    Store(
        word="Trigger event",
        columns=("payload",),
        first=0,
        total=Sql("SELECT count(*) FROM trigger_event WHERE payload IS NOT NULL"),
        encrypted=Sql("SELECT 1 FROM trigger_event WHERE payload LIKE 'gAAAA%' LIMIT 1"),
        page=Sql(
            "SELECT id, trigger_id AS name, {true} AS is_encrypted, payload FROM trigger_event "
            "WHERE id > :last AND payload IS NOT NULL ORDER BY id LIMIT :size {for_update}"
        ),
        update=Sql("UPDATE trigger_event SET payload = :payload WHERE id = :id"),
        passing=True,
        reopen=reopened,
    ),
    Store(  # what it is resumed with
        word="Resumed task",
        columns=("next_kwargs",),
        first=0,
        total=Sql("SELECT count(*) FROM task_instance WHERE next_kwargs IS NOT NULL"),
        encrypted=Sql(
            "SELECT 1 FROM task_instance WHERE next_kwargs LIKE 'gAAAA%' "
            "OR next_kwargs LIKE 'sealed:%' LIMIT 1"
        ),
        page=Sql(
            "SELECT id, task_id AS name, {true} AS is_encrypted, next_kwargs FROM task_instance "
            "WHERE id > :last AND next_kwargs IS NOT NULL ORDER BY id LIMIT :size {for_update}"
        ),
        update=Sql("UPDATE task_instance SET next_kwargs = :next_kwargs WHERE id = :id"),
        passing=True,
        reopen=reopened,
    ),
)


class Batch(NamedTuple):
    """What became of some rows.

    Attributes:
        last: key of the last of them; None: there are none left.
        seen: how many rows were looked at.
        changed: how many have been, or would be, encrypted anew.
        unreadable: an error line for each row that no key decrypts.
    """

    last: str | int | None
    seen: int
    changed: int
    unreadable: list[str]


def any_encrypted(tx: Tx) -> bool:
    """Whether some row is encrypted."""
    return any(tx.first(store.encrypted) is not None for store in STORES)


def count(tx: Tx, store: Store) -> int:
    """How many rows a store has."""
    return int(tx.scalar(store.total))


def rotate_batch(
    tx: Tx, store: Store, keys: Keyring, last: str | int, size: int, *, dry_run: bool = False
) -> Batch:
    """Encrypt the rows after ``last`` with the newest key, those that are not so already.

    The rows are locked from the read to the commit, so that no write in between is lost. A row
    that no key decrypts is left as it is.

    Args:
        tx: the transaction.
        store: which table.
        keys: the newest encrypts, all decrypt.
        last: ``store.first``, or what the last batch ended with.
        size: most rows.
        dry_run: change nothing.
    """
    rows = tx.all(store.page, last=last, size=size)
    changed, unreadable = 0, []
    for row in rows:
        try:
            values = _renewed(row, store, keys)
        except DecryptionError as error:
            unreadable.append(str(error))
            continue
        if values is not None:
            changed += 1
            if not dry_run:
                tx.run(store.update, id=row.id, **values)
    return Batch(rows[-1].id if rows else None, len(rows), changed, unreadable)


def _renewed(row: Any, store: Store, keys: Keyring) -> dict[str, str | None] | None:
    """The row's secrets under the newest key; None when they are so already."""
    stored = {column: getattr(row, column) for column in store.columns}
    if store.reopen is not None:
        return _renewed_texts(row, store, store.reopen, keys)
    given = [value for value in stored.values() if value is not None]
    if row.is_encrypted and all(map(keys.is_newest, given)):
        return None
    what = f"{store.word} {row.name!r}"
    return {
        column: value
        if value is None
        else keys.encrypt(keys.decrypt(value, what) if row.is_encrypted else value)
        for column, value in stored.items()
    }


def _renewed_texts(
    row: Any, store: Store, reopen: Callable[[str, Callable[[str], str]], str], keys: Keyring
) -> dict[str, str | None] | None:
    """The same of texts that tell themselves whether they are encrypted."""
    what = f"{store.word} {row.name!r}"
    changed = False

    def renew(text: str) -> str:
        nonlocal changed
        if not is_sealed(text) or keys.is_newest(text):
            return text
        changed = True
        return keys.encrypt(keys.decrypt(text, what))

    renewed = {
        column: text if (text := getattr(row, column)) is None else reopen(text, renew)
        for column in store.columns
    }
    return renewed if changed else None
