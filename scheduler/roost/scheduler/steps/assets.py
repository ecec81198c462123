"""Assets: events of tasks that succeeded, and the runs that they start (H16)."""

from __future__ import annotations

from collections.abc import Mapping

from roost.dag.model import AssetCondition
from roost.models.queries import assets
from roost.models.queries.assets import NewEvent
from roost.models.transitions import NewRun, create_run
from roost.scheduler.book import ActiveRun
from roost.scheduler.steps.adopt import version_of
from roost.scheduler.turn import Turn
from roost.support.clock import from_us

__all__ = ["produce", "satisfied", "settle_assets"]

_BATCH = 1_000


def produce(
    turn: Turn, run: ActiveRun, index: int, extras: Mapping[str, bytes] | None = None
) -> None:
    """A task instance succeeded: each of its outlets has an event, stored with its state."""
    task = run.board.tasks[index]
    for uri in task.outlets:
        extra = (extras or {}).get(uri, b"{}")
        turn.produced.append(
            NewEvent(
                uri, run.dag_id, run.run_id, task.task_id, run.board.map_index(index),
                bytes(extra).decode(),
            )
        )  # fmt: skip


def satisfied(condition: AssetCondition, there: set[str]) -> bool:
    """Whether events of the assets in ``there`` are all that a condition asks for. Pure."""
    if condition.op == "asset":
        return condition.uri in there
    quantifier = all if condition.op == "all" else any
    return quantifier(satisfied(part, there) for part in condition.parts)


def settle_assets(turn: Turn) -> None:
    """Take up events, let them wait for who listens, and start the runs that have all of theirs.

    All in one transaction with a lock on each listening DAG: an event goes into exactly one run of
    each, and two that come at once through two schedulers are seen together by one of them.
    """
    assets.add_events(turn.tx, turn.produced)
    turn.produced.clear()
    events = assets.take_events(turn.tx, _BATCH)
    turn.more |= len(events) == _BATCH
    if not events:
        return
    listening = assets.lock_listeners(turn.tx, sorted({uri for _, uri in events}))
    if not listening:
        return
    assets.note_pending(turn.tx, events, list(listening))
    created = [_create_run(turn, dag_id, version) for dag_id, version in listening.items()]
    if any(created):
        # Adopted by the next turn: at the end of this one, what a user edited since it looked
        # would be read again, and not decided any more.
        turn.more = turn.memory.may_start = True


def _create_run(turn: Turn, dag_id: str, version_id: int) -> bool:
    condition = version_of(turn, version_id).plan.dag.assets
    there = assets.pending(turn.tx, dag_id)
    if condition is None or not satisfied(condition, set(there)):
        return False
    run = NewRun(
        dag_id=dag_id,
        # The newest event makes it one of its kind: two may come in one microsecond.
        run_id=f"asset_triggered__{from_us(turn.now).isoformat()}__{max(there.values())}",
        run_type="asset_triggered",
        version_id=version_id,
        logical_date=None,
        interval_start=None,
        interval_end=None,
        run_after=turn.now,
    )
    key = create_run(turn.tx, run, actor=turn.actor)
    if key is not None:  # else somebody has made a run of that very id by hand
        assets.add_uses(turn.tx, dag_id, key)
    return key is not None
