"""The life of one trigger in the runner: build it, wait for its first event, clean up.

Whatever user code does here - raise, return instead of yield, end without an event, cancel
itself, raise SystemExit, yield what cannot be stored - becomes a report about this one trigger
(D5). Nothing escapes to the loop that its neighbours run on.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from roost.dag.trigger import BaseTaskEndEvent, BaseTrigger, TriggerEvent
from roost.dag.xcom_value import encode as encode_xcom
from roost.exceptions import RoostException, ValueNotStorable
from roost.support import typedjson
from roost.support.frames import MAX_FRAME
from roost.support.labels import task_label
from roost.support.masking import mask_also, secrets_in
from roost.support.storable import storable
from roost.support.trigger_wire import TriggerReport, TriggerSpec
from roost.triggerer.starting import row_of
from roost.triggers.pooled import PooledTrigger

if TYPE_CHECKING:
    from roost.triggerer.killing import Killing
    from roost.triggerer.pooled import Seat

__all__ = [
    "CURRENT",
    "Case",
    "RenderFn",
    "ReportFn",
    "ResolveFn",
    "TakeFn",
    "TellFn",
    "build",
    "clean",
    "events_of",
    "explain",
    "explain_briefly",
    "live",
    "report_of",
]

log = logging.getLogger(__name__)

# The trigger whose code runs now; inherited by every task the trigger starts.
CURRENT: contextvars.ContextVar[int] = contextvars.ContextVar("roost_trigger_id")

CLEANUP_S = 10.0
_OURS = os.path.dirname(__file__) + os.sep
_MAX_ERROR = 64 * 1024
_MAX_REASON = 1_000
# Of one event together: it goes in one message, and ends in one row.
_MAX_XCOMS = MAX_FRAME // 2
_HOW_TO_YIELD = (
    "run() of {name} is not an async generator: declare it `async def run(self)` and "
    "`yield TriggerEvent(...)` instead of returning it"
)

ResolveFn = Callable[["Case"], Awaitable[type[BaseTrigger]]]
RenderFn = Callable[["Case"], Awaitable[dict[str, Any]]]
ReportFn = Callable[[TriggerReport], None]
TakeFn = Callable[["Case", PooledTrigger], None]
TellFn = Callable[["Case", BaseTrigger | None], None]
BoundFn = Callable[["Case"], asyncio.TimerHandle]


class Case:
    """One trigger the runner holds: who it is, and how far it got. Small: there are thousands."""

    __slots__ = (
        "classpath",
        "cleaning",
        "code_hash",
        "dag_id",
        "epoch",
        "killing",
        "kwargs",
        "leaving",
        "map_index",
        "over",
        "receipt",
        "run_id",
        "seat",
        "secrets",
        "source",
        "start",
        "started",
        "task",
        "task_id",
        "trigger",
        "trigger_id",
        "try_number",
    )

    #: Whose log has what it says: its task's, or the triggerer's own.
    of_task = True

    def __init__(self, spec: TriggerSpec, labels: dict[str, str]) -> None:
        self.trigger_id = spec.trigger_id
        self.epoch = spec.epoch
        # Equal strings are shared: most triggers of a runner come from few classes and files.
        self.classpath = labels.setdefault(spec.classpath, spec.classpath)
        self.source = labels.setdefault(spec.source, spec.source)
        self.code_hash = labels.setdefault(spec.code_hash, spec.code_hash)
        self.dag_id = labels.setdefault(spec.dag_id, spec.dag_id)
        self.run_id = labels.setdefault(spec.run_id, spec.run_id)
        self.task_id = spec.task_id
        self.map_index = spec.map_index
        self.try_number = spec.try_number
        self.kwargs: bytes | None = bytes(spec.kwargs)
        self.start = spec.start  # what it is made of, until it is rendered (D12)
        self.secrets: tuple[str, ...] = ()  # of its kwargs: hidden in all that it says
        self.task: asyncio.Task[None] | None = None
        self.seat: Seat | None = None  # in the pool; it has no task then
        self.started = False
        self.leaving = False  # cancelled by us: report nothing
        self.over = False  # because nobody waits for it any more
        self.cleaning = False  # user code has ended; do not disturb cleanup
        self.receipt: asyncio.Future[bool] | None = None
        self.trigger: BaseTrigger | None = None  # while it runs
        self.killing: Killing | None = None  # a user ended the wait: on_kill() comes first (D10)

    @property
    def label(self) -> str:
        """Whose trigger it is, in words."""
        return task_label(self.dag_id, self.task_id, self.map_index, self.run_id)

    def receive(self, stored: bool) -> None:
        """The report that waits for it is in the database, or was refused."""
        if self.receipt is not None and not self.receipt.done():
            self.receipt.set_result(stored)


async def live(
    case: Case,
    resolve: ResolveFn,
    report: ReportFn,
    pool: TakeFn | None = None,
    unmet: TellFn | None = None,
    render: RenderFn | None = None,
    bound: BoundFn | None = None,
) -> None:
    """Run one trigger to its end and report what became of it. Never raises.

    Args:
        case: the trigger.
        resolve: finds its class.
        report: takes the report.
        pool: takes a trigger that is polled with others, and reports what becomes of it.
        unmet: told of a trigger whose wait ends without an event, before that is reported.
        render: makes the arguments of a trigger that its task starts in.
        bound: has the trigger cancelled, unless its handle is, when ``run()`` goes on for too long
            behind its event.
    """
    if case.leaving:
        return
    case.started = True
    task = asyncio.current_task()
    CURRENT.set(case.trigger_id)
    trigger: BaseTrigger | None = None
    events: AsyncIterator[object] | None = None
    try:
        cls = await resolve(case)
        starts = case.start is not None
        trigger = build(cls, case, None if not starts or render is None else await render(case))
        trigger.trigger_id = case.trigger_id
        if starts and (row := row_of(trigger)) is not None:
            report(TriggerReport(case.trigger_id, case.epoch, "row", row=row))
            return
        if pool is not None and isinstance(trigger, PooledTrigger):
            pool(case, trigger)
            return
        case.trigger = trigger
        events = events_of(trigger)
        # Here, not in a coroutine of its own: the frame of that would weigh as much as all of Case.
        ended = _told(await anext(events), trigger, case)
    except BaseException as error:  # SystemExit and a stray CancelledError are this trigger's own
        _raise_if_closed(task, error)
        _end_unmet(case, trigger, error, report, unmet)
    else:
        if not case.leaving:
            ended.waits = _acknowledges(case, trigger)
            if ended.waits:
                case.receipt = asyncio.get_running_loop().create_future()
            report(ended)
            if ended.waits:
                await _acknowledge(case, trigger)
            if bound is not None and not case.leaving:
                await _go_on(case, events, bound)
    await _leave(case, trigger, events)


async def _go_on(case: Case, events: AsyncIterator[object], bound: BoundFn) -> None:
    """Let ``run()`` come to its end behind the event, where it may give back what it has.

    A wait ends with its first event (reliability.md 2b); of a second one nobody can be told.
    """
    task = asyncio.current_task()
    handle = bound(case)
    try:
        await anext(events)
    except StopAsyncIteration:
        pass
    except BaseException as error:
        _raise_if_closed(task, error)
        if not case.leaving:
            _complain(case, "run(), behind its event,", error)
    else:
        log.warning(
            "trigger %d (%s) yielded a second event, which is lost: a wait ends with the first",
            case.trigger_id, case.label,
        )  # fmt: skip
    finally:
        handle.cancel()


async def _leave(
    case: Case, trigger: BaseTrigger | None, events: AsyncIterator[object] | None
) -> None:
    """The last of user code: ``on_kill()`` where a user ended the wait, then the cleaning up."""
    case.cleaning = True
    case.trigger = None
    if case.killing is not None:
        await case.killing.call(case, trigger)
    await clean(case, trigger, events)


def _end_unmet(
    case: Case,
    trigger: BaseTrigger | None,
    error: BaseException,
    report: ReportFn,
    unmet: TellFn | None,
) -> None:
    """There will be no event: that is reported, unless we have ended it ourselves."""
    if unmet is not None and (case.over or not case.leaving):
        unmet(case, trigger)
    if isinstance(error, StopAsyncIteration) and trigger is not None:
        error = RoostException(
            f"{type(trigger).__name__} ended without an event; run() must yield a TriggerEvent "
            "before it ends"
        )
    if not case.leaving:
        report(_failed(case, error))


def _raise_if_closed(task: asyncio.Task[Any] | None, error: BaseException) -> None:
    """Let go of a coroutine that is taken down from outside: nothing may be awaited any more.

    A ``GeneratorExit`` that a trigger raises itself arrives while its task executes, and is an
    error as any other.
    """
    if isinstance(error, GeneratorExit):
        try:
            executes = asyncio.current_task() is task
        except RuntimeError:  # no loop runs any more
            executes = False
        if task is None or not executes:
            raise error


def _acknowledges(case: Case, trigger: BaseTrigger) -> bool:
    try:
        return type(trigger).on_stored is not BaseTrigger.on_stored
    except BaseException as error:  # a descriptor may do anything
        _complain(case, "on_stored()", error)
        return False


def _complain(case: Case, what: str, error: BaseException) -> None:
    log.warning(
        "%s of trigger %d (%s) did not end well: %s",
        what, case.trigger_id, case.label, explain_briefly(error),
    )  # fmt: skip


async def _acknowledge(case: Case, trigger: BaseTrigger) -> None:
    """Call ``on_stored()`` once the event is in the database; what goes wrong is only logged."""
    task = asyncio.current_task()
    try:
        if case.receipt is None or not await case.receipt:
            return
        async with asyncio.timeout(CLEANUP_S):
            await trigger.on_stored()
    except BaseException as error:
        _raise_if_closed(task, error)
        if not case.leaving:
            _complain(case, "on_stored()", error)


def build(
    cls: type[BaseTrigger], case: Case, rendered: dict[str, Any] | None = None
) -> BaseTrigger:
    """Make the trigger; ``rendered``: of these arguments instead of its own (D12).

    Raises:
        RoostException: its arguments cannot be read.
        Exception: whatever its ``__init__`` raises.
    """
    try:
        kwargs = typedjson.decode(case.kwargs or b"{}") if rendered is None else rendered
    except ValueNotStorable as error:
        raise RoostException(f"the kwargs of {case.classpath} cannot be read: {error}") from None
    case.kwargs = case.start = None
    if not isinstance(kwargs, dict):
        raise RoostException(
            f"the kwargs of {case.classpath} are not a dict; return (classpath, dict) "
            "from serialize()"
        )
    case.secrets = tuple(secrets_in(kwargs, ""))
    return cls(**kwargs)


def events_of(trigger: BaseTrigger) -> AsyncIterator[object]:
    """What ``run()`` yields.

    Raises:
        RoostException: it is no async generator.
    """
    made: Any = trigger.run()
    if hasattr(made, "__aiter__"):
        iterator: AsyncIterator[object] = aiter(made)
        return iterator
    if inspect.iscoroutine(made):
        made.close()  # never started: no half-done work, no "was never awaited" warning
    raise RoostException(_HOW_TO_YIELD.format(name=type(trigger).__name__))


def _told(event: object, trigger: BaseTrigger, case: Case) -> TriggerReport:
    name = type(trigger).__name__
    if not isinstance(event, TriggerEvent):
        raise RoostException(
            f"{name} yielded {type(event).__name__}; yield TriggerEvent(payload) instead"
        )
    return report_of(event, name, case)


def report_of(event: TriggerEvent, name: str, case: Case) -> TriggerReport:
    """The report of a trigger that has had its event.

    Raises:
        RoostException: the event cannot be stored.
    """
    try:
        if isinstance(event, BaseTaskEndEvent):
            return _end(event, case)
        payload = msgspec.Raw(typedjson.encode(event.payload, name="payload"))
        return TriggerReport(case.trigger_id, case.epoch, "fired", payload=payload)
    except ValueNotStorable as error:
        raise RoostException(f"{name} yielded an event that cannot be stored: {error}") from None


def _end(event: BaseTaskEndEvent, case: Case) -> TriggerReport:
    reason = None
    if event.reason is not None:
        reason = storable(mask_also(str(event.reason), case.secrets))[:_MAX_REASON]
    xcoms = [encode_xcom(case.label, key, value) for key, value in event.xcoms.items()]
    report = TriggerReport(case.trigger_id, case.epoch, event.kind, error=reason, xcoms=xcoms)
    if report.size > _MAX_XCOMS:
        raise ValueNotStorable(
            f"its XComs have {report.size:,} bytes, at most {_MAX_XCOMS:,} go with one event"
        )
    return report


async def clean(
    case: Case, trigger: BaseTrigger | None, events: AsyncIterator[object] | None
) -> None:
    """Close the generator and call ``cleanup()`` (D9); what goes wrong there is only logged."""
    task = asyncio.current_task()
    for what, owner, name in (("run()", events, "aclose"), ("cleanup()", trigger, "cleanup")):
        try:
            step = getattr(owner, name, None)
            if step is None:
                continue
            # A trigger that cancelled itself, or was cancelled, still cleans up undisturbed.
            while task is not None and task.cancelling():
                task.uncancel()
            async with asyncio.timeout(CLEANUP_S):
                await step()
        except BaseException as error:
            _raise_if_closed(task, error)
            _complain(case, what, error)


def _failed(case: Case, error: BaseException) -> TriggerReport:
    return TriggerReport(case.trigger_id, case.epoch, "failed", error=explain(error, case.secrets))


def explain(error: BaseException, secrets: Sequence[str] = ()) -> str:
    """The error as text that any database stores: our own in one line, others with traceback.

    Args:
        error: what a trigger raised.
        secrets: hidden besides those that the whole process was given.
    """
    if type(error) is RoostException:
        text = _text_of(error)
    else:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
            trace = trace.tb_next  # the first frames are ours and tell a user nothing
        text = _formatted(error, trace)
        if isinstance(error, asyncio.CancelledError):
            text += "\nthe trigger cancelled itself, or awaited something that was cancelled"
    text = mask_also(text, secrets)  # before it is cut: half a secret would not be recognised
    if len(text) > _MAX_ERROR:
        text = f"{text[: _MAX_ERROR // 2]}\n… cut …\n{text[-_MAX_ERROR // 2 :]}"
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def explain_briefly(error: BaseException) -> str:
    """The error in one line, whatever its own code does."""
    return f"{type(error).__name__}: {_text_of(error)}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # its own code, which may do anything
        return "(its text cannot be told)"


def _formatted(error: BaseException, trace: TracebackType | None) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    except BaseException:  # its notes, its cause, …: its own code again
        frames = "".join(traceback.format_tb(trace))
        return f"Traceback (most recent call last):\n{frames}{explain_briefly(error)}"
