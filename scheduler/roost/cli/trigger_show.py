"""``roost triggers show`` and ``triggers why``: one trigger."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec

from roost.cli.base import Command
from roost.cli.hiding import hide_stored_secrets
from roost.cli.lookup import find_instance, find_run
from roost.cli.output import emit, iso, output_option
from roost.cli.session import reading
from roost.cli.waiting import triggerer_of, waits_for, why_waiting
from roost.exceptions import DecryptionError, NotFound
from roost.models.engine import Tx
from roost.models.queries import listing
from roost.models.queries import why as queries
from roost.support import masking
from roost.support.clock import SECOND, now_us
from roost.support.config import Config
from roost.support.crypto import keyring_of

__all__ = ["show", "why"]

_COLUMNS = (
    "trigger_id", "lane", "classpath", "source", "waits_for", "why", "dag_id", "run_id", "task_id",
    "map_index", "try_number", "queue", "triggerer", "epoch", "created_at", "age_s", "due_at",
    "external_key", "timeout_at", "on_timeout", "next_method", "fired_at", "kwargs", "strikes",
    "trouble", "trouble_at", "fileloc", "code", "watcher",
)  # fmt: skip


def _trigger(tx: Tx, trigger_id: int) -> Any:
    row = queries.trigger_by_id(tx, trigger_id)
    if row is None:
        raise NotFound(
            f"there is no trigger {trigger_id}: it has ended, or never was; `roost triggers list` "
            "shows those there are, `roost tasks why DAG_ID RUN_ID TASK_ID` what became of a task"
        )
    return row


def _why(tx: Tx, row: Any) -> Any:
    jobs = listing.live_jobs(tx)
    counts = listing.trigger_counts(tx)
    triggerers = [triggerer_of(job, counts) for job in jobs if job.kind == "triggerer"]
    return why_waiting(row, triggerers, sum(job.kind == "scheduler" for job in jobs), now_us())


@click.command(cls=Command)
@click.argument("trigger_id", type=click.IntRange(1, (1 << 63) - 1))
@output_option
def show(trigger_id: int, output: str) -> None:
    """Show everything about one trigger, its arguments with secrets hidden.

    Hidden is what has a sensitive name, and what the database holds as a secret. The arguments of
    a trigger in which its task starts are shown as the DAG file has them, templates not rendered.
    """
    with reading() as (config, tx):
        row = _trigger(tx, trigger_id)
        hide_stored_secrets(tx, config)
        found: dict[str, Any] = {
            **row._asdict(),
            "trigger_id": row.id,
            "waits_for": waits_for(row),
            "why": _why(tx, row).text,
            "triggerer": f"{row.hostname}:{row.pid}" if row.hostname else None,
            "age_s": round((now_us() - row.created_at) / SECOND, 3),
            "kwargs": _kwargs(config, row),
            "code": row.code_hash[:12],
        }
    for name in ("created_at", "due_at", "timeout_at", "fired_at", "trouble_at"):
        found[name] = iso(found[name])
    if output == "json":
        emit([found], _COLUMNS, output)
        return
    found["kwargs"] = json.dumps(found["kwargs"], ensure_ascii=False)
    facts = [{"property_name": name, "property_value": found[name]} for name in _COLUMNS]
    emit(facts, ("property_name", "property_value"), output)


def _kwargs(config: Config, row: Any) -> Any:
    """The arguments for showing, or why they cannot be shown."""
    try:
        text = keyring_of(config).unseal(row.kwargs, f"trigger {row.id}")
    except DecryptionError as error:
        return str(error)
    kwargs = msgspec.json.decode(text)
    if row.start is not None:  # the task starts in it: its runner renders them, and keeps them
        kwargs = msgspec.json.decode(row.start)["kwargs"]
    return masking.mask_value(kwargs)


@click.command(cls=Command)
@click.argument("what", metavar="TRIGGER_ID|DAG_ID")
@click.argument("run_id", required=False)
@click.argument("task_id", required=False)
@click.option("--map-index", default=-1, help="Of a mapped task.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="One line, or an object with kind, text and numbers.",
)  # fmt: skip
def why(what: str, run_id: str | None, task_id: str | None, map_index: int, output: str) -> None:
    """Say why a trigger has not fired: TRIGGER_ID, or DAG_ID RUN_ID TASK_ID.

    Exactly one reason, as `roost tasks why` gives it of a deferred task.
    """
    with reading() as (config, tx):
        if run_id is None:
            if not what.isdecimal() or len(what) > 18:
                raise click.UsageError("give a trigger's id, or DAG_ID RUN_ID TASK_ID")
            row = _trigger(tx, int(what))
        elif task_id is None:
            raise click.UsageError("give TASK_ID, too")
        else:
            run = find_run(tx, config, what, run_id)
            instance = find_instance(tx, run, task_id, map_index)
            row = None if instance is None else queries.trigger(tx, instance.id)
            if row is None:
                state = "none" if instance is None else instance.state
                raise NotFound(
                    f"task {task_id} is {state}: it waits for no trigger; "
                    f"`roost tasks why {what} {run_id} {task_id}` says more"
                )
        found = _why(tx, row)
    if output == "json":
        fields = {"kind": found.kind, "text": found.text, "numbers": found.numbers}
        click.echo(msgspec.json.format(msgspec.json.encode(fields), indent=2))
    else:
        click.echo(found.text)
