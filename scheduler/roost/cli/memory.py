"""The supervisor of an in-process run: XComs and Variables kept in memory."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roost.support.config import load_config
from roost.support.wire import (
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


class _Value(NamedTuple):
    task_id: str
    key: str
    value: msgspec.Raw


class Memory:
    """XComs and Variables of the run, in memory: what a supervisor asks the database for."""

    def __init__(self) -> None:
        self.values: list[_Value] = []
        self.variables: dict[str, str] = {}
        self.task_id = ""

    def push(self, key: str, value: msgspec.Raw) -> None:
        """Keep a value of the current task; an older one of the same key is replaced."""
        mine = (self.task_id, key)
        self.values = [kept for kept in self.values if (kept.task_id, kept.key) != mine]
        self.values.append(_Value(self.task_id, key, value))

    def call(self, request: Request) -> Reply:
        """Answer a request of the current task."""
        match request:
            case XComPush(key=key, value=value):
                self.push(key, value)
                return Reply()
            case XComPull():
                return Reply(values=self._pull(request))
            case VariableGet(key=key):
                return Reply(text=self.variables.get(key))
            case VariableSet(key=key, value=text):
                self.variables[key] = text
                return Reply()
            case VariableDelete(key=key):
                return Reply(count=int(self.variables.pop(key, None) is not None))
            case MailSettings():
                return Reply(smtp=load_config().smtp)
            case RunCreate() | RunStates():
                return Reply(error="runs of other DAGs need the daemons: `roost standalone`")
            case _:
                return Reply()

    def _pull(self, request: XComPull) -> list[msgspec.Raw]:
        def newest(task_id: str | None) -> msgspec.Raw:
            for kept in reversed(self.values):
                if task_id in (None, kept.task_id) and request.key in (None, kept.key):
                    return kept.value
            return msgspec.Raw(b"null")

        wanted = [None] if request.task_ids is None else request.task_ids
        return [newest(task_id) for task_id in wanted]
