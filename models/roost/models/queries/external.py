"""Events from outside, and the triggers that wait for their keys.

An event is a row until a triggerer has matched it: it wakes all that wait for its key, and is
*taken*; while nobody waits it is kept, and the next to wait takes it. Sender and waiter never meet:
each commits a row, and whoever looks afterwards sees both, so no order of the two loses anything.

Of one key the oldest open event goes first, and no other of that key before it is taken. So two
triggerers never give two events of a key to each other's waiters in the wrong order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from roost.models.engine import Sql, Tx
from roost.models.sql import Row

__all__ = [
    "ANY_HEARD",
    "HEARD",
    "STATES",
    "Matched",
    "NewEvent",
    "Told",
    "ahead",
    "delete",
    "event_count",
    "event_rows",
    "match",
    "prune",
    "send",
    "told",
    "waiting",
]

STATES = ("waiting", "taken", "expired", "deleted")
"""What may have become of an event."""
_OPEN = "e.taken_at IS NULL AND e.expires_at > {now}"
_WAITS = "t.external_key IS NOT NULL AND t.fired_at IS NULL"
_NEXT_EVENT = (
    f"(SELECT e.external_key FROM external_event e WHERE {_OPEN} AND e.external_key {{key}} "
    "ORDER BY e.external_key LIMIT 1)"
)
_NEXT_TRIGGER = (
    f"(SELECT t.external_key FROM trigger t WHERE {_WAITS} AND t.external_key >= leap.key "
    "ORDER BY t.external_key LIMIT 1)"
)
# A key that an open event and a waiting trigger share, found by leaps: the first of an event, the
# first of a trigger not before it, the first of an event not before that, and so on. It costs as
# many probes of an index as the two sorts of keys alternate: two, for a million kept events and
# one waiter, or the reverse. Each row holds the side that was asked, the key before it and its
# own; equal ones are the match. A look must stay cheap even where many keys of both alternate: it
# gives up after so many leaps, and a pass of match() goes on from there.
_MOST_LEAPS = 500
_LEAP = (
    "leap(depth, side, before, key) AS ("
    f"SELECT 0, 0, CAST(NULL AS text), {_NEXT_EVENT.replace('{key}', '> {first}')} UNION ALL "
    "SELECT leap.depth + 1, 1 - leap.side, leap.key, CASE leap.side "
    f"WHEN 0 THEN {_NEXT_TRIGGER} ELSE {_NEXT_EVENT.replace('{key}', '>= leap.key')} END "
    f"FROM leap WHERE leap.depth < {_MOST_LEAPS} AND leap.key IS NOT NULL "
    "AND (leap.before IS NULL OR leap.before <> leap.key))"
)
ANY_HEARD = _LEAP.replace("{first}", "''")
"""Part of a WITH RECURSIVE: ``leap`` has a row that meets :data:`HEARD` if anything may match."""
HEARD = f"(key = before OR (key IS NOT NULL AND depth = {_MOST_LEAPS}))"
_HEARD = Sql(
    f"WITH RECURSIVE {_LEAP.replace('{first}', ':after')} "
    f"SELECT before, key FROM leap WHERE {HEARD}"
)
_SEND = Sql(
    "INSERT INTO external_event "
    "(external_key, payload, sender, nonce, token_until, created_at, expires_at) "
    "SELECT :key, :payload, :sender, CAST(:nonce AS text), CAST(:token_until AS bigint), {now}, "
    "{now} + CAST(:keep_us AS bigint) WHERE {true} "
    "ON CONFLICT (nonce) DO NOTHING RETURNING id"
)
# Another triggerer's event is skipped, and with it its key.
_OLDEST = Sql(
    "SELECT e.id, e.payload FROM external_event e WHERE e.taken_at IS NULL AND e.id = ("
    f"SELECT e.id FROM external_event e WHERE {_OPEN} AND e.external_key = :key "
    "ORDER BY e.external_key, e.id LIMIT 1) {skip_locked}"
)
# A trigger that others have locked is waited for: it is going, or it stays, and then it is woken.
_FIRE = Sql(
    "INSERT INTO trigger_event (trigger_id, epoch, kind, payload, created_at) "
    "SELECT w.id, w.epoch, 'fired', :payload, {now} FROM ("
    f"SELECT t.id, t.epoch FROM trigger t WHERE {_WAITS} AND t.external_key = :key "
    "ORDER BY t.id {for_update}) AS w WHERE {true} ON CONFLICT (trigger_id) DO NOTHING"
)
_MARK = Sql(
    "UPDATE trigger SET fired_at = {now} WHERE external_key IS NOT NULL AND fired_at IS NULL "
    "AND external_key = :key "
    "AND EXISTS (SELECT 1 FROM trigger_event x WHERE x.trigger_id = trigger.id)"
)
_TAKE = Sql("UPDATE external_event SET taken_at = {now}, woken = :woken WHERE id = :id")
_EVENT = Sql("SELECT id, taken_at, woken, expires_at FROM external_event WHERE id = :id")
_AHEAD = Sql(
    f"SELECT count(*) FROM (SELECT 1 FROM external_event e WHERE {_OPEN} "
    "AND e.external_key = :key AND e.id < :id LIMIT :most) AS w"
)
_WAITING = Sql(
    f"SELECT count(*) FROM (SELECT 1 FROM trigger t WHERE {_WAITS} AND t.external_key = :key "
    "LIMIT :most) AS w"
)
# An event whose payload is gone is over, but its row keeps the token that sent it from being used
# again. What has woken somebody stays "taken" to the last.
_LISTED = (
    "(SELECT id, external_key AS key, CASE WHEN woken > 0 THEN 'taken' WHEN payload = '' "
    "THEN 'deleted' WHEN expires_at <= {now} THEN 'expired' ELSE 'waiting' END AS state, sender, "
    "created_at, expires_at, taken_at, woken, payload FROM external_event "
    "WHERE (CAST(:key AS text) IS NULL OR external_key = :key) AND id < :before) AS e "
    "WHERE (CAST(:state AS text) IS NULL OR state = :state)"
)
_LIST = Sql(f"SELECT * FROM {_LISTED} ORDER BY id DESC LIMIT :most")
_COUNT = Sql(f"SELECT count(*) FROM {_LISTED}")
_ALL = (1 << 63) - 1
# A token must not become good again: what is left of its event stays until it has expired.
_BARE = (
    "payload = '', taken_at = coalesce(taken_at, {now}), "
    "expires_at = coalesce(token_until, expires_at)"
)
_BARE_EXPIRED = Sql(
    f"UPDATE external_event SET {_BARE} WHERE token_until > {{now}} AND id IN ("
    "SELECT e.id FROM external_event e WHERE e.expires_at <= {now} "
    "ORDER BY e.expires_at LIMIT :batch {skip_locked})"
)
# Not what is still to be bared: the oldest are more by now than those that were.
_DELETE_EXPIRED = Sql(
    "DELETE FROM external_event WHERE id IN ("
    "SELECT e.id FROM external_event e WHERE e.expires_at <= {now} "
    "AND (e.token_until IS NULL OR e.token_until <= {now}) "
    "ORDER BY e.expires_at LIMIT :batch {skip_locked})"
)
_CHOSEN = "(id = :id OR external_key = :key) AND payload <> ''"
_BARE_CHOSEN = Sql(f"UPDATE external_event SET {_BARE} WHERE token_until > {{now}} AND {_CHOSEN}")
_DELETE_CHOSEN = Sql(f"DELETE FROM external_event WHERE {_CHOSEN}")
_KEYS_AT_ONCE = 20


class NewEvent(NamedTuple):
    """An event to send.

    Attributes:
        key: whom it is for.
        payload: encrypted typed JSON.
        sender: who sends it, for people.
        keep_us: how long it is kept while nobody waits for it.
        nonce: of the token that was used; each is good for one event.
        token_until: until when that token could be used again.
    """

    key: str
    payload: str
    sender: str
    keep_us: int
    nonce: str | None = None
    token_until: int | None = None


class Matched(NamedTuple):
    """What a step has done.

    Attributes:
        events: how many events were taken.
        woken: how many triggers they fired.
        unreadable: events that were left alone, and why.
        after: where to go on; None: every key was looked at.
    """

    events: int
    woken: int
    unreadable: list[tuple[int, str]]
    after: str | None


class Told(NamedTuple):
    """What has become of an event."""

    id: int
    taken_at: int | None
    woken: int
    expires_at: int


def send(tx: Tx, event: NewEvent) -> int | None:
    """Store an event; gives its id, or None when its token was used before."""
    row = tx.first(_SEND, **event._asdict())
    return None if row is None else int(row.id)


def match(tx: Tx, unseal: Callable[[int, str], str], after: str = "") -> Matched:
    """Fire what waits for open events, and mark these as taken: some keys, one transaction.

    Args:
        unseal: gives the payload of an event, by id and stored text, as it is passed on; raises
            ValueError with a text where it cannot.
        after: only keys behind this one.
    """
    events = woken = 0
    unreadable: list[tuple[int, str]] = []
    for _ in range(_KEYS_AT_ONCE):
        heard = tx.first(_HEARD, after=after)
        if heard is None:
            return Matched(events, woken, unreadable, None)
        if heard.key != heard.before:
            after = heard.before  # it gave up there: nothing before it matches
            continue
        after = heard.key
        oldest = tx.first(_OLDEST, key=after)
        if oldest is not None:
            try:
                payload = unseal(oldest.id, oldest.payload)
            except ValueError as error:
                unreadable.append((oldest.id, str(error)))
            else:
                fired = tx.run(_FIRE, key=after, payload=payload)
                tx.run(_MARK, key=after)
                if fired:  # else it woke nobody, and is for the next
                    tx.run(_TAKE, id=oldest.id, woken=fired)
                    events, woken = events + 1, woken + fired
    return Matched(events, woken, unreadable, after)


def told(tx: Tx, event_id: int) -> Told | None:
    """What has become of an event; None when it is gone."""
    row = tx.first(_EVENT, id=event_id)
    return None if row is None else Told._make(row)


def waiting(tx: Tx, key: str, most: int = 1_000_000) -> int:
    """How many triggers wait for a key, counted up to ``most``."""
    return int(tx.scalar(_WAITING, key=key, most=most))


def ahead(tx: Tx, key: str, event_id: int, most: int = 1_000_000) -> int:
    """How many events of a key go before one of them, counted up to ``most``."""
    return int(tx.scalar(_AHEAD, key=key, id=event_id, most=most))


def event_rows(
    tx: Tx, key: str | None, state: str | None, before: int | None, most: int
) -> Sequence[Row]:
    """Events, newest first; ``payload`` as it is stored.

    Args:
        tx: the transaction.
        key: only of this key.
        state: only in this one of :data:`STATES`.
        before: only those with a smaller id.
        most: at most this many.
    """
    return tx.all(_LIST, key=key, state=state, before=before or _ALL, most=most)


def event_count(tx: Tx, key: str | None, state: str | None, before: int | None) -> int:
    """How many of them there are before an id."""
    return int(tx.scalar(_COUNT, key=key, state=state, before=before or _ALL))


def delete(tx: Tx, *, event_id: int | None = None, key: str | None = None) -> int:
    """Delete an event, or all of a key; gives how many. Their tokens stay used."""
    bared = tx.run(_BARE_CHOSEN, id=event_id, key=key)
    return bared + tx.run(_DELETE_CHOSEN, id=event_id, key=key)


def prune(tx: Tx, batch: int) -> int:
    """Delete up to ``batch`` events whose time is over; gives how many there were of them."""
    bared = tx.run(_BARE_EXPIRED, batch=batch)
    return bared + tx.run(_DELETE_EXPIRED, batch=batch)
