"""Triggers: what a deferred task waits for, and the event that wakes it (N3, D8)."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from roost.support.trigger_wire import EndKind

if TYPE_CHECKING:
    from roost.dag.connection import Connection

__all__ = [
    "DAG_MODULE",
    "BaseTaskEndEvent",
    "BaseTrigger",
    "TaskFailedEvent",
    "TaskSkippedEvent",
    "TaskSuccessEvent",
    "TriggerEvent",
    "classpath_of",
    "source_of",
    "trigger_classes",
]

DAG_MODULE = "roost_dag_"
"""With what the names of modules begin that are DAG files; a hash ends them."""

_MOST_NOTES = 10
_NOTE_CHARS = 500


class TriggerEvent:
    """What a trigger yields when its moment has come.

    Args:
        payload: given to the resumed method as ``event``; typed JSON.
        key: of what it tells of, where a watcher's trigger yields it: at most one event of a key
            is kept, however often it comes (D13). At most 200 characters.
    """

    __slots__ = ("key", "payload")

    def __init__(self, payload: Any = None, *, key: str | None = None) -> None:
        self.payload = payload
        self.key = key

    def __repr__(self) -> str:
        return f"TriggerEvent({self.payload!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TriggerEvent) and other.payload == self.payload

    __hash__ = None  # type: ignore[assignment]  # payloads are mutable


class BaseTaskEndEvent(TriggerEvent):
    """An event that ends the task at once, without a worker and a slot (D11).

    Callbacks, outlets and trigger rules see what they would see of a task that ended by itself.

    Args:
        xcoms: pushed for the task, by key; not where a failed try is tried again.
        reason: one line for the log of what happened.
    """

    __slots__ = ("reason", "xcoms")

    #: How the report of the trigger names it.
    kind: ClassVar[EndKind]

    def __init__(
        self, *, xcoms: Mapping[str, Any] | None = None, reason: str | None = None
    ) -> None:
        super().__init__()
        self.xcoms = dict(xcoms or {})
        self.reason = reason

    def __repr__(self) -> str:
        return f"{type(self).__name__}(xcoms={self.xcoms!r}, reason={self.reason!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaseTaskEndEvent) and (other.kind, other.xcoms, other.reason) == (
            self.kind,
            self.xcoms,
            self.reason,
        )

    __hash__ = None


class TaskSuccessEvent(BaseTaskEndEvent):
    """The task has succeeded."""

    kind = "end_success"


class TaskFailedEvent(BaseTaskEndEvent):
    """This try of the task has failed; ``retries`` count."""

    kind = "end_failed"


class TaskSkippedEvent(BaseTaskEndEvent):
    """The task is skipped."""

    kind = "end_skipped"


class BaseTrigger(ABC):
    """Waits, as light as possible, and yields one :class:`TriggerEvent`.

    It is stored as what :meth:`serialize` returns, and made anew from it wherever it runs,
    possibly several times and, after a takeover, in two places at once (D8).
    """

    #: Row of this trigger; set where it runs, None elsewhere.
    trigger_id: int | None = None

    #: Whether its event ends the task, whatever method ``defer()`` names. A trigger that only waits
    #: for a moment says so here; one that is run yields a :class:`BaseTaskEndEvent`.
    end_from_trigger: bool = False

    # Of the last notes: text, first and last moment, how often in a row; one flat list, because
    # there are thousands of triggers. None before the first.
    _roost_notes: list[Any] | None = None

    @abstractmethod
    def serialize(self) -> tuple[str, dict[str, Any]]:
        """``(class path, constructor kwargs)``; the kwargs are typed JSON."""

    @abstractmethod
    def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait and yield the event: write ``async def run(self): … yield TriggerEvent(…)``."""

    @property
    def due_at(self) -> datetime | None:
        """The moment it waits for, when that is all it does.

        Such a trigger waits as a row in the database: it costs no memory and its :meth:`run` is
        not called; its event's payload is the moment itself, in UTC. None: it has to be run.
        """
        return None

    @property
    def external_key(self) -> str | None:
        """What it waits to hear of, when others will say so.

        Such a trigger, too, waits as a row that costs no memory; its :meth:`run` is not called.
        """
        return None

    def note(self, text: str) -> None:
        """Remember what a poll found, in case the event never comes.

        The last ten notes, equal ones in a row as one, are written to the task's log when the wait
        ends without an event: by its time-out, by a failure or by a user.
        """
        now = time.time()
        text = str(text)[:_NOTE_CHARS]
        notes = self._roost_notes
        if notes is None:
            self._roost_notes = [text, now, now, 1]
        elif notes[-4] == text:
            notes[-2:] = now, notes[-1] + 1
        else:
            notes += text, now, now, 1
            del notes[: -4 * _MOST_NOTES]

    def last_notes(self) -> list[tuple[str, float, float, int]]:
        """The last notes: text, first and last moment in seconds, how often in a row."""
        flat = self._roost_notes or []
        return [(*flat[at : at + 4],) for at in range(0, len(flat), 4)]

    async def get_connection(self, conn_id: str) -> Connection:
        """``await`` a Connection: from the environment, else from the database (S48).

        Raises:
            NotFound: there is none (S49).
        """
        from roost.dag.connection import Connection  # DAG files that only defer need none of it

        return await Connection.get_async(conn_id)

    async def get_variable(self, key: str, *default: Any) -> Any:
        """``await`` a Variable; with a default, that one where there is none.

        Raises:
            VariableNotFound: there is none and no default.
        """
        from roost.dag.variable import Variable

        return await Variable.get_async(key, *default)

    async def xcom_pull(
        self,
        task_ids: str | Sequence[str],
        key: str = "return_value",
        *,
        map_index: int | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
    ) -> Any:
        """``await`` what tasks of this run have left; None where nothing is.

        Args:
            task_ids: one task; several: a list of their values, in this order.
            key: under which key.
            map_index: of that instance of a mapped task.
            dag_id: of another DAG.
            run_id: of another run.
        """
        from roost.dag import runtime
        from roost.support import typedjson
        from roost.support.task_requests import XComPull

        several = not isinstance(task_ids, str)
        request = XComPull(
            list(task_ids) if several else [task_ids],  # type: ignore[list-item]  # a str there
            key,
            dag_id,
            run_id,
            map_index,
        )
        reply = await runtime.ask_async(request, "xcom_pull")
        found = [typedjson.decode(raw) for raw in reply.values]  # only tasks ever unpickle
        return found if several else found[0]

    async def on_stored(self) -> None:  # noqa: B027 - most triggers take nothing
        """Called when the event is in the database: acknowledge to others what it tells of.

        A class that has this method, and only such a one, is kept after its ``yield`` until then;
        :meth:`run` is still where it yielded. It is not called when the event came too late or the
        triggerer has ended before: who gives up what it took only here takes it at least once.
        """

    async def on_kill(self) -> None:  # noqa: B027 - most triggers begin nothing elsewhere
        """Called when a user clears or marks the task: end what it waits for elsewhere (D10).

        Not when it times out, moves to another triggerer or has had its event. :meth:`run` has
        been cancelled before, :meth:`cleanup` follows. It may be called on a trigger that is made
        anew for it, and again when a triggerer ends meanwhile. ``triggerer.on_kill_timeout``
        bounds it; what it raises is logged only.
        """

    async def cleanup(self) -> None:  # noqa: B027 - most triggers hold nothing
        """Called once on every exit of :meth:`run`; what it raises is logged only (D9)."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def source_of(kind: type) -> str:
    """``module:qualname`` of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def classpath_of(kind: type) -> str:
    """The name of a class as its author writes it in ``serialize()``, for people to read.

    A class in a DAG file cannot know under which module name that file is loaded.
    """
    module = kind.__module__
    if module.startswith("roost.triggers."):
        module = "roost.triggers"
    elif module.startswith(DAG_MODULE):
        module = module.removeprefix(DAG_MODULE).rpartition("_")[0]
    return f"{module}.{kind.__qualname__}"


def trigger_classes() -> list[type[BaseTrigger]]:
    """Every subclass of BaseTrigger that exists in this process."""
    found: dict[type[BaseTrigger], None] = {}
    stack: list[type[BaseTrigger]] = [BaseTrigger]  # type: ignore[type-abstract]
    while stack:
        for kind in stack.pop().__subclasses__():
            if kind not in found:
                found[kind] = None
                stack.append(kind)
    return list(found)
