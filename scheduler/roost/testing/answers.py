"""What tasks of a simulation are answered: by the worker's own ledger, but for the stores."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine

from roost.dag.connection import Connection
from roost.dag.runtime import Supervisor
from roost.models.answers import ReadingAnswers
from roost.models.engine import read
from roost.models.queries import triggers
from roost.support.crypto import Keyring
from roost.support.task_requests import (
    ConnectionGet,
    ConnectionRecord,
    Reply,
    Request,
    VariableDelete,
    VariableGet,
    VariableSet,
)
from roost.support.wire import TaskSpec
from roost.triggerer.messages import Ask
from roost.worker.attendant import Asked
from roost.worker.ledger import Ledger

__all__ = ["Answers"]


class Answers:
    """Variables and Connections of a simulation, kept in memory.

    Args:
        variables: by key; what tasks set or delete changes them for the others.
        connections: URIs by conn_id.
    """

    def __init__(self, variables: Mapping[str, str], connections: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self.connections = dict(connections)
        self._reading = ReadingAnswers(Keyring())

    def for_task(self, ledger: Ledger, spec: TaskSpec) -> Supervisor:
        """The supervisor of one task."""
        return _Supervisor(self, ledger, spec)

    def for_trigger(self, engine: Engine, ask: Ask) -> Reply:
        """The answer to a request of a trigger."""
        answer = self.reply(ask.request)
        if answer is not None:
            return answer
        with read(engine) as tx:
            place = triggers.place(tx, ask.trigger_id)
            if place is None:
                return Reply(error="its trigger has ended")
            return self._reading.reply(tx, place, ask.request)

    def reply(self, request: Request) -> Reply | None:
        """The answer to a request about a store; None where it is about something else."""
        match request:
            case VariableGet(key=key):
                return Reply(text=self.variables.get(key))
            case VariableSet(key=key, value=value):
                self.variables[key] = value
                return Reply()
            case VariableDelete(key=key):
                return Reply(count=int(self.variables.pop(key, None) is not None))
            case ConnectionGet(conn_id=conn_id):
                uri = self.connections.get(conn_id)
                return Reply(connection=None if uri is None else _record(conn_id, uri))
            case _:
                return None


def _record(conn_id: str, text: str) -> ConnectionRecord:
    fields = vars(Connection.parse(conn_id, text))
    return ConnectionRecord(**{name: fields[name] for name in ConnectionRecord.__struct_fields__})


class _Supervisor:
    def __init__(self, answers: Answers, ledger: Ledger, spec: TaskSpec) -> None:
        self._answers = answers
        self._ledger = ledger
        self._spec = spec

    def call(self, request: Request) -> Reply:
        """Answer one request of the task."""
        answer = self._answers.reply(request)
        if answer is None:
            (answer,) = self._ledger.answer([Asked(self._spec, request)])
        return answer
