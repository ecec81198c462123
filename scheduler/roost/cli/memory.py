"""The supervisor of an in-process run: XComs and Variables kept in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from roost.exceptions import RoostException
from roost.models.queries.mapping import Left
from roost.support.config import load_config
from roost.support.elements import element_of, list_of
from roost.support.event_tokens import url_of
from roost.support.task_requests import (
    CallbackUrl,
    MailSettings,
    Reply,
    Request,
    RunCreate,
    RunStates,
    VariableDelete,
    VariableGet,
    VariableSet,
    XComPull,
    XComPush,
)

__all__ = ["Memory"]

_NULL = msgspec.Raw(b"null")


class _Value(NamedTuple):
    task_id: str
    map_index: int
    key: str
    value: msgspec.Raw
    length: int | None


class Memory:
    """XComs and Variables of the run, in memory: what a supervisor asks the database for."""

    def __init__(self) -> None:
        self.values: list[_Value] = []
        self.variables: dict[str, str] = {}
        self.task_id = ""
        self.map_index = -1

    def push(self, key: str, value: msgspec.Raw, length: int | None) -> None:
        """Keep a value of the current task; an older one of the same key is replaced."""
        mine = (self.task_id, self.map_index, key)
        self.values = [kept for kept in self.values if kept[:3] != mine]
        self.values.append(_Value(*mine, value, length))

    def left(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Left]:
        """How many values tasks left under a key, and their length, by ``(task_id, key)``."""
        found = {}
        for task_id, key in wanted:
            lengths = [v.length for v in self.values if (v.task_id, v.key) == (task_id, key)]
            if lengths:
                known = [length for length in lengths if length is not None]
                found[task_id, key] = Left(len(lengths), max(known, default=None))
        return found

    def call(self, request: Request) -> Reply:
        """Answer a request of the current task."""
        match request:
            case XComPush(key=key, value=value, length=length):
                self.push(key, value, length)
                return Reply()
            case XComPull():
                try:
                    return Reply(values=self._pull(request))
                except RoostException as error:
                    return Reply(error=str(error))
            case VariableGet(key=key):
                return Reply(text=self.variables.get(key))
            case VariableSet(key=key, value=text):
                self.variables[key] = text
                return Reply()
            case VariableDelete(key=key):
                return Reply(count=int(self.variables.pop(key, None) is not None))
            case MailSettings():
                return Reply(smtp=load_config().smtp)
            case CallbackUrl():
                return Reply(text=url_of("http://dags-test", "nothing-is-taken-here"))
            case RunCreate() | RunStates():
                return Reply(error="runs of other DAGs need the daemons: `roost standalone`")
            case _:
                return Reply()

    def _pull(self, request: XComPull) -> list[msgspec.Raw]:
        wanted: list[str | None] = [None] if request.task_ids is None else [*request.task_ids]
        return [self._answer(task_id, request) for task_id in wanted]

    def _answer(self, task_id: str | None, request: XComPull) -> msgspec.Raw:
        found = [
            kept
            for kept in self.values
            if task_id in (None, kept.task_id)
            and request.key in (None, kept.key)
            and request.map_index in (None, kept.map_index)
        ]
        if request.gather:
            values = [kept.value for kept in sorted(found, key=lambda kept: kept.map_index)]
            if request.measure:
                return msgspec.Raw(msgspec.json.encode(len(values)))
            if request.element is None:
                return list_of(values)
            return values[request.element] if request.element < len(values) else _NULL
        if not found:
            return _NULL
        if request.measure:
            return msgspec.Raw(msgspec.json.encode(found[-1].length))
        value = found[-1].value
        return value if request.element is None else element_of(value, request.element)
