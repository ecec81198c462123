"""Replies to what tasks ask: XComs, Variables, Connections, the mail server (H26)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from roost.dag.xcom_value import MAX_KEY
from roost.exceptions import RoostException
from roost.models.answers import ReadingAnswers
from roost.models.engine import Tx
from roost.models.queries import assets, past, variables, xcoms
from roost.support import typedjson
from roost.support.clock import now_us
from roost.support.crypto import Keyring
from roost.support.event_tokens import make_token, url_of
from roost.support.mail import Smtp
from roost.support.task_requests import (
    AssetEvent,
    AssetEventsGet,
    CallbackUrl,
    ConnectionGet,
    MailSettings,
    PreviousRun,
    Reply,
    RunCreate,
    RunRecord,
    RunStates,
    VariableDelete,
    VariableGet,
    VariableSet,
    XComPull,
    XComPush,
)
from roost.support.wire import TaskSpec, XComWrite
from roost.worker import children
from roost.worker.attendant import Asked

__all__ = ["Answers", "writes", "xcom_of"]


def writes(asked: Asked) -> bool:
    """Whether the answer to a request changes the database."""
    return isinstance(asked.request, XComPush | VariableSet | VariableDelete | RunCreate)


def xcom_of(spec: TaskSpec, write: XComWrite | XComPush) -> xcoms.XComValue:
    """A value to be stored for a task."""
    text = bytes(write.value).decode()
    return xcoms.XComValue(spec.ti_id, spec.dispatch_id, write.key, text, write.length)


class Answers:
    """Makes replies. Called from several threads.

    Args:
        keys: of Variables and Connections.
        smtp: the mail server.
        max_xcom_size: most bytes of one XCom.
        events_at: gives what the URLs of events begin with.
    """

    def __init__(
        self,
        keys: Keyring,
        smtp: Smtp | None = None,
        max_xcom_size: int = typedjson.MAX_BYTES,
        events_at: Callable[[], str] | None = None,
    ) -> None:
        self._keys = keys
        self._smtp = smtp or Smtp()
        self._max_xcom_size = max_xcom_size
        self._reading = ReadingAnswers(keys)
        self._events_at = events_at

    def reply(self, tx: Tx, job_id: int, asked: Asked) -> Reply:
        """The answer to one request. An error that has a remedy is the asking task's alone."""
        try:
            return self._reply(tx, job_id, asked)
        except RoostException as error:
            return Reply(error=str(error))

    def refusal(self, spec: TaskSpec, write: XComWrite | XComPush) -> str:
        """Why an XCom cannot be stored; empty: it can.

        The task process has looked itself; here it is about one that did not.
        """
        size, limit = len(bytes(write.value)), self._max_xcom_size
        if size > limit:
            return (
                f"XCom {write.key[:80]!r} of task {spec.task_id!r}: {size:,} bytes, "
                f"core.max_xcom_size is {limit:,}; store it elsewhere and push where it is"
            )
        if not 0 < len(write.key) <= MAX_KEY or "\0" in write.key:
            return f"XCom of task {spec.task_id!r}: the key must have 1 to {MAX_KEY} characters"
        return ""

    def _reply(self, tx: Tx, job_id: int, asked: Asked) -> Reply:
        spec, request = asked
        match request:
            case XComPull() | VariableGet() | ConnectionGet():
                return self._reading.reply(tx, spec, request)
            case XComPush():
                return self._push(tx, job_id, spec, request)
            case RunCreate() | RunStates() | PreviousRun():
                return _runs(tx, job_id, spec, request)
            case AssetEventsGet():
                return Reply(events=_events(tx, spec))
            case MailSettings():
                return Reply(smtp=self._smtp)
            case CallbackUrl(key, life_us):
                return self._callback_url(key, life_us)
            case _:
                return self._of_stores(tx, request)

    def _of_stores(self, tx: Tx, request: VariableSet | VariableDelete) -> Reply:
        match request:
            case VariableSet(key, text, description):
                variables.set_variable(tx, key, text, self._keys, description)
                return Reply()
            case VariableDelete(key):
                return Reply(count=variables.delete_variable(tx, key))

    def _callback_url(self, key: str, life_us: int) -> Reply:
        if self._events_at is None:
            return Reply(error="events cannot be sent here")
        token = make_token(self._keys, key, now_us(), life_us)
        return Reply(text=url_of(self._events_at(), token))

    def _push(self, tx: Tx, job_id: int, spec: TaskSpec, push: XComPush) -> Reply:
        wrong = self.refusal(spec, push)
        if wrong:
            return Reply(error=wrong)
        if xcoms.push(tx, job_id, [xcom_of(spec, push)]):
            return Reply()
        return Reply(error="this dispatch is not valid any more; nothing was stored")


def _runs(
    tx: Tx, job_id: int, spec: TaskSpec, request: RunCreate | RunStates | PreviousRun
) -> Reply:
    if isinstance(request, RunCreate):
        return children.create(tx, job_id, spec, request, now=now_us())
    if isinstance(request, RunStates):
        return children.see(tx, request)
    if spec.logical_date is None:
        return Reply()
    found = past.previous_success(tx, spec.dag_id, spec.logical_date)
    if found is None:
        return Reply()
    record = RunRecord(
        found.run_id,
        found.state,
        found.logical_date,
        interval_start=found.interval_start,
        interval_end=found.interval_end,
        start_date=found.start_date,
        end_date=found.end_date,
    )
    return Reply(runs=[record])


def _events(tx: Tx, spec: TaskSpec) -> list[AssetEvent]:
    return [
        AssetEvent(
            row.uri, row.at, row.dag_id, row.run_id, row.task_id, row.map_index,
            msgspec.Raw(row.extra.encode()),
        )
        for row in assets.used_by(tx, spec.dag_id, spec.run_id)
    ]  # fmt: skip
