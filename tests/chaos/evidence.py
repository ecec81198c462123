"""What there is to judge by: the event log, the audit and the witness, read once at the end."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from roost.models.states import Event
from tests.chaos.scripts import STARTED

__all__ = ["BY_USER", "Body", "Entry", "Evidence", "Key", "Sighting", "read"]

BY_USER = frozenset({Event.CLEAR, Event.MARK_SUCCESS, Event.MARK_FAILED, Event.MARK_SKIPPED})

_SIGHTINGS = (
    "SELECT e.extra, (SELECT {list} FROM asset_use u JOIN dag_run r ON r.id = u.dag_run_id "
    "WHERE u.event_id = e.id) AS runs FROM asset_event e ORDER BY e.id"
)
_TOTALS = (
    "SELECT r.dag_id, r.run_id, x.value FROM xcom x JOIN task_instance t ON t.id = x.ti_id "
    "JOIN dag_run r ON r.id = t.dag_run_id WHERE t.task_id = 'total' AND x.key = 'return_value'"
)
_LISTS = {"postgresql": "CAST(json_agg(r.run_id) AS text)", "sqlite": "json_group_array(r.run_id)"}
Key = tuple[str, str, str, int]  # dag, run, task, map_index


@dataclass
class Entry:
    """One dispatch as the event log tells it.

    Attributes:
        came: the dispatch that deferred what this one goes on with; None: it begins a try.
        ended: the event that ended it; None: it is still under way.
        made: the trigger it deferred with.
    """

    ti: Key
    try_number: int
    came: int | None
    trigger: int | None
    ended: str | None = None
    reason: str | None = None
    made: int | None = None


@dataclass
class Body:
    """One dispatch as its task tells it."""

    begin: dict[str, Any]
    end: dict[str, Any] | None = None


@dataclass
class Sighting:
    """What a watcher saw as the database has it, and the runs that were made for it."""

    thing: str
    runs: list[str]


@dataclass
class Evidence:
    """Everything in order of time, by whom it is about.

    Attributes:
        left: what each trigger was left by.
        resumed: the dispatches that went on after each trigger.
        dropped: triggers after which a user was faster than the dispatch that was to go on.
        edits: moves that users made, or had made.
    """

    started = STARTED

    states: dict[Key, str] = field(default_factory=dict)
    runs: dict[tuple[str, str], str] = field(default_factory=dict)
    entries: dict[int, Entry] = field(default_factory=dict)
    left: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    resumed: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    audit: list[Any] = field(default_factory=list)
    witness: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[tuple[str, str], str] = field(default_factory=dict)  # by run
    dropped: set[int] = field(default_factory=set)
    edits: list[tuple[Key, Any]] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)

    @cached_property
    def bodies(self) -> dict[int, list[Body]]:
        """By dispatch; more than one is a violation."""
        found: dict[int, list[Body]] = {}
        for line in self.witness:
            if line["w"] == "begin":
                found.setdefault(line["d"], []).append(Body(line))
            elif line["w"] == "end" and line["d"] in found:
                found[line["d"]][-1].end = line
        return found

    def bodies_of(self, dispatch: int) -> list[Body]:
        """Of one dispatch; none where it was lost before its body began."""
        return self.bodies.get(dispatch, [])

    def maker(self, trigger: int) -> int | None:
        """The dispatch that deferred with a trigger."""
        return self._makers.get(trigger)

    def __post_init__(self) -> None:
        self._makers: dict[int, int] = {}

    def add_log(self, key: Key, rows: list[Any]) -> None:
        """The log of one task instance, in order of its versions."""
        came: int | None = None
        trigger: int | None = None
        waits = 0
        for row in rows:
            event = row.event
            if event == Event.SCHEDULE or event in BY_USER:
                self._add_edit(key, row, trigger)
                came = trigger = None
            elif event == Event.RESUME:
                trigger, came = row.trigger_id, self._makers.get(row.trigger_id)
            elif event == Event.START:
                self.entries[row.dispatch_id] = Entry(key, row.try_number, came, trigger)
                if trigger is not None:
                    self.resumed[trigger].append(row.dispatch_id)
            elif event == Event.START_DEFERRED:
                self._makers[row.trigger_id] = STARTED
                self.left.setdefault(row.trigger_id, [])
            if row.to_state == "deferred":
                waits = row.trigger_id
            if row.from_state == "deferred":  # an edit has forgotten what was awaited
                self.left[waits if event in BY_USER else row.trigger_id].append(row)
            elif row.from_state == "running" and row.dispatch_id in self.entries:
                self._add_end(self.entries[row.dispatch_id], row)

    def _add_edit(self, key: Key, row: Any, trigger: int | None) -> None:
        if row.event not in BY_USER:
            return
        self.edits.append((key, row))
        if trigger is not None and row.from_state in ("scheduled", "queued"):
            self.dropped.add(trigger)

    def _add_end(self, entry: Entry, row: Any) -> None:
        entry.ended, entry.reason = row.event, row.reason
        if row.event == Event.DEFER:
            entry.made = row.trigger_id
            self._makers[row.trigger_id] = row.dispatch_id
            self.left.setdefault(row.trigger_id, [])  # it has to be left


def read(engine: Engine, folder: Path) -> Evidence:
    """Everything, when nothing moves any more."""
    found = Evidence()
    with engine.connect() as db:

        def rows(sql: str) -> list[Any]:
            return list(db.execute(text(sql)).all())

        keys: dict[int, Key] = {}
        for row in rows(
            "SELECT t.id, r.dag_id, r.run_id, t.task_id, t.map_index, t.state "
            "FROM task_instance t JOIN dag_run r ON r.id = t.dag_run_id"
        ):
            keys[row.id] = (row.dag_id, row.run_id, row.task_id, row.map_index)
            found.states[keys[row.id]] = row.state
        for row in rows("SELECT dag_id, run_id, state FROM dag_run"):
            found.runs[row.dag_id, row.run_id] = row.state
        logs: dict[int, list[Any]] = defaultdict(list)
        for row in rows(
            "SELECT * FROM event_log WHERE ti_id IS NOT NULL ORDER BY ti_id, ti_version"
        ):
            logs[row.ti_id].append(row)
        for ti_id, log in logs.items():
            found.add_log(keys[ti_id], log)
        found.audit = rows("SELECT * FROM chaos_audit ORDER BY id")
        found.totals = {(row.dag_id, row.run_id): row.value for row in rows(_TOTALS)}
        found.sightings = [
            Sighting(json.loads(row.extra)["thing"], json.loads(row.runs or "[]"))
            for row in rows(_SIGHTINGS.format(list=_LISTS[engine.dialect.name]))
        ]
    lines = (folder / "witness").read_text().splitlines() if (folder / "witness").exists() else []
    found.witness = [json.loads(line) for line in lines]
    return found
