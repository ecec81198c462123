"""Guards lost by mutants: those of queues, shared streams, keys, time-outs, ends and starts."""

from __future__ import annotations

from typing import Any

from tests.chaos.mutating import Mutant, cut, queries

__all__ = ["MUTANTS"]


def _any_queue() -> None:
    """A triggerer claims whatever waits, in whatever queue (D18)."""
    guard = "queue IN (SELECT q.queue FROM {rows:q = queues | queue text})"
    cut(queries("triggers"), "_CLAIM_FREE_QUEUES", guard, f"(1 = 1 OR {guard})")


def _early_ack() -> None:
    """An item of a shared stream is acknowledged when the first watcher is done with it (D14)."""
    from roost.triggerer import fanout

    delivery: Any = vars(fanout)["_Delivery"]

    def done(self: Any, _feed: Any, *, refused: bool) -> None:
        self.waiting.clear()
        self.refused |= refused

    delivery.done = done


def _deaf_feed() -> None:
    """Some items of a shared stream pass by some of its watchers (D14)."""
    from roost.triggerer import fanout

    feed: Any = fanout.Feed
    put = feed.put

    def deaf(self: Any, delivery: Any) -> None:
        if delivery.item.value["number"] % 3 or self.case.trigger_id % 2:
            put(self, delivery)

    feed.put = deaf


def _early_timeout() -> None:
    """Time-outs come almost a second too early (D6)."""
    from roost.scheduler.book import Book

    book: Any = Book
    due: Any = book.due_alarms
    book.due_alarms = lambda self, now: due(self, now + 900_000)


def _deaf_timeout() -> None:
    """A scheduler that reads events late times out who has one (D6)."""
    inbox = queries("inbox")
    cut(inbox, "_FIRED", "AND NOT r.changed", "AND NOT r.changed AND e.created_at < {now} - 900000")
    inbox.lock_triggers = lambda _tx, _ids: {}


def _unkept_event() -> None:
    """What nobody waits for yet is not kept."""
    from roost.models.engine import Sql

    external = queries("external")
    forget = Sql(
        "DELETE FROM external_event WHERE taken_at IS NULL AND NOT EXISTS (SELECT 1 FROM trigger t "
        "WHERE t.external_key = external_event.external_key AND t.fired_at IS NULL)"
    )
    match = external.match

    def forgetful(tx: Any, *args: Any, **others: Any) -> Any:
        found = match(tx, *args, **others)
        tx.run(forget)
        return found

    external.match = forgetful


def _soft_end() -> None:
    """A trigger that ends its task as failed has it succeed (D11)."""
    from roost.models.states import State
    from roost.scheduler.steps import end_event

    names: Any = vars(end_event)
    names["_GOOD"] = {**names["_GOOD"], names["_FAILED"]: State.SUCCESS}
    names["_FAILED"] = "nothing"


def _begun_by_worker() -> None:
    """A task that starts in its trigger has a worker begin it (D12)."""
    from roost.scheduler.book import ActiveRun

    run: Any = ActiveRun
    run.starts_in_trigger = lambda _self, _index: False


def _first_arguments() -> None:
    """Who defers again goes on with what the first deferral left (D3)."""
    from roost.scheduler.steps import deferral

    names: Any = vars(deferral)
    make = names["_trigger_row"]
    first: dict[int, str] = {}

    def old(turn: Any, item: Any) -> Any:
        row = make(turn, item)
        return row._replace(next_kwargs=first.setdefault(row.ti_id, row.next_kwargs))

    names["_trigger_row"] = old


MUTANTS: dict[str, Mutant] = {
    "any-queue": Mutant(_any_queue, "D18"),
    "early-ack": Mutant(_early_ack, "D14"),
    "deaf-feed": Mutant(_deaf_feed, "D14"),
    "early-timeout": Mutant(_early_timeout, "D6"),
    "deaf-timeout": Mutant(_deaf_timeout, "D6"),
    "unkept-event": Mutant(_unkept_event, "key"),
    "soft-end": Mutant(_soft_end, "D11"),
    "begun-by-worker": Mutant(_begun_by_worker, "D12"),
    "first-arguments": Mutant(_first_arguments, "S3"),
}
