"""HttpHook, HttpOperator, HttpSensor against a real server (S28, S45, S46, S50)."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from roost.exceptions import DagError, NotFound, RoostException
from roost.hooks import HttpHook
from roost.operators import HttpOperator, SimpleHttpOperator
from roost.sensors import HttpSensor, PokeReturnValue
from roost.support import typedjson
from roost.support.task_requests import ConnectionRecord
from tests.dag.case import FakeSupervisor, a_dag, raw, run

Answer = Callable[["Server", str], tuple[int, str]]


class Server:
    """Keeps what it is asked; answers what ``answer`` says."""

    def __init__(self, protocol: str = "HTTP/1.0") -> None:
        self.seen: list[dict[str, Any]] = []
        self.connections = 0
        self.answer: Answer = lambda server, path: (200, json.dumps(server.seen[-1]))
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = protocol

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                server.seen.append(
                    {
                        "method": self.command,
                        "path": self.path,
                        "body": body,
                        "headers": {k.lower(): v for k, v in self.headers.items()},
                    }
                )
                status, text = server.answer(server, self.path)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/there")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True  # connections that are kept open do not keep us
        self.port = int(self._http.server_address[1])
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def known(server: Server) -> FakeSupervisor:
    """Knows the connection ``http_default``, the server's."""
    supervisor = FakeSupervisor()
    supervisor.connections["http_default"] = ConnectionRecord(
        "http_default",
        "http",
        "127.0.0.1",
        "me",
        "secret",
        port=server.port,
        extra='{"X-Team": "data", "timeout": 20}',
    )
    return supervisor


def operator(**arguments: Any) -> HttpOperator:
    return HttpOperator(task_id="h", dag=a_dag(), **arguments)


def test_s46_a_request_uses_the_connection(server: Server, known: FakeSupervisor) -> None:
    task = operator(
        endpoint="/v1/{{ ds }}", data={"day": "{{ ds }}"}, headers={"X-Own": "{{ ds }}"}
    )
    outcome, values = run(task, known)
    assert outcome.error is None, outcome.error
    (seen,) = server.seen
    assert (seen["method"], seen["path"], seen["body"]) == (
        "POST",
        "/v1/2026-01-31",
        "day=2026-01-31",
    )
    headers = seen["headers"]
    assert (headers["x-team"], headers["x-own"]) == ("data", "2026-01-31")
    assert headers["authorization"].startswith("Basic ")
    assert json.loads(values["return_value"])["path"] == "/v1/2026-01-31"


def test_get_puts_its_data_into_the_query(server: Server, known: FakeSupervisor) -> None:
    assert run(operator(endpoint="x", method="get", data={"a": "1 2"}), known)[0].kind == "success"
    assert (server.seen[0]["method"], server.seen[0]["path"]) == ("GET", "/x?a=1+2")
    assert run(operator(method="PUT", data='{"a":1}'), known)[0].kind == "success"
    assert (server.seen[1]["path"], server.seen[1]["body"]) == ("/", '{"a":1}')


def test_answers_are_checked_and_filtered(server: Server, known: FakeSupervisor) -> None:
    server.answer = lambda _server, _path: (200, '{"rows": 3}')
    good = operator(
        response_check=lambda response, ds: response.json()["rows"] == 3 and ds == "2026-01-31",
        response_filter=lambda response: response.json()["rows"],
        log_response=True,
    )
    assert run(good, known)[1] == {"return_value": 3}
    bad = run(operator(response_check=lambda response: False), known)[0]
    assert "fails response_check" in (bad.error or "")


def test_an_error_names_the_request_and_what_the_server_said(
    server: Server, known: FakeSupervisor
) -> None:
    server.answer = lambda _server, _path: (503, "come\nback later")
    error = run(operator(endpoint="x?token=hidden"), known)[0].error or ""
    said = f"POST http://127.0.0.1:{server.port}/x: 503 Service Unavailable: come back later"
    assert said in error
    assert "secret" not in error.splitlines()[-1]
    taken = operator(endpoint="x", extra_options={"check_response": False})
    assert run(taken, known)[1] == {"return_value": "come\nback later"}
    unknown = operator(extra_options={"stream": True})
    assert "unknown option 'stream'" in (run(unknown, known)[0].error or "")


def test_redirects_are_followed_unless_told(server: Server, known: FakeSupervisor) -> None:
    server.answer = lambda _server, path: (302, "") if path == "/here" else (200, "arrived")
    follows = operator(endpoint="here", method="GET")
    assert run(follows, known)[1] == {"return_value": "arrived"}
    stays = operator(endpoint="here", method="GET", extra_options={"allow_redirects": False})
    assert run(stays, known)[1] == {"return_value": ""}


def test_no_answer(known: FakeSupervisor, server: Server) -> None:
    server.close()
    error = run(operator(), known)[0].error or ""
    assert f"POST http://127.0.0.1:{server.port}:" in error
    server.__init__()  # type: ignore[misc]  # the fixture closes it again


def test_s49_s50_the_default_connection_is_named_when_it_is_missing() -> None:
    assert HttpHook.default_conn_id == "http_default"
    outcome, _ = run(operator(), FakeSupervisor())
    assert "The conn_id `http_default` isn't defined" in (outcome.error or "")


def test_s45_s48_a_hook_serves_scripts_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of any task the environment holds the connection, and is looked at first."""
    with pytest.raises((NotFound, RoostException)):
        HttpHook("GET", "site").run()
    monkeypatch.setenv("AIRFLOW_CONN_SITE", f"http://127.0.0.1:{server.port}")
    assert HttpHook("GET", "site").run("a").status_code == 200
    assert server.seen[0]["path"] == "/a"
    assert "authorization" not in server.seen[0]["headers"]


@pytest.mark.parametrize(
    ("uri", "endpoint", "url"),
    [
        ("http://h:8/", "x", "http://h:8/x"),
        ("http://h/https", "/x", "https://h/x"),
        ("https://h", "", "https://h"),
        ("http://https://h:9/", "x", "https://h:9/x"),
        ("http://h", "ftp://other/y", "ftp://other/y"),
    ],
)
def test_addresses(uri: str, endpoint: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_CONN_SITE", uri)
    assert HttpHook(http_conn_id="site").url(endpoint) == url


def test_without_the_package_the_extra_is_named(
    known: FakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    error = run(operator(), known)[0].error or ""
    assert "pip install 'roost[http]'" in error


def test_both_names_are_one_operator() -> None:
    assert SimpleHttpOperator is HttpOperator


def test_sensor_waits_for_a_good_answer(
    server: Server, known: FakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.sensors.base.time.sleep", lambda seconds: None)
    answers = iter([(404, ""), (200, "no"), (200, "yes")])
    server.answer = lambda _server, _path: next(answers)
    sensor = HttpSensor(
        task_id="s",
        endpoint="{{ ds }}",
        request_params={"q": 1},
        response_check=lambda response: PokeReturnValue(response.text == "yes", response.text),
        mode="poke",
        dag=a_dag(),
    )
    assert run(sensor, known)[1] == {"return_value": "yes"}
    assert [one["path"] for one in server.seen] == ["/2026-01-31?q=1"] * 3


def test_sensor_fails_for_other_errors_and_defers_without_a_process(
    server: Server, known: FakeSupervisor
) -> None:
    server.answer = lambda _server, _path: (500, "broken")
    plain = HttpSensor(task_id="s", dag=a_dag())
    assert "500 Internal Server Error" in (run(plain, known)[0].error or "")
    patient: dict[str, Any] = {"response_error_codes_allowlist": [500], "poke_interval": 7}
    checked = HttpSensor(task_id="c", response_check=bool, dag=a_dag(), **patient)
    spec = run(checked, known)[0].defer
    assert spec is not None
    assert (spec.lane, spec.next_method) == ("timer", "poke_again")
    spec = run(HttpSensor(task_id="p", endpoint="{{ ds }}", dag=a_dag(), **patient), known)[0].defer
    assert spec is not None
    assert (spec.lane, spec.next_method) == ("poll", "execute_complete")
    kwargs: Any = typedjson.decode(spec.kwargs)
    assert (kwargs["endpoint"], kwargs["poll_interval"]) == ("2026-01-31", 7.0)
    assert kwargs["not_yet"] == [500]
    assert b"secret" not in bytes(spec.kwargs) + bytes(spec.next_kwargs)


@pytest.mark.parametrize("status", ["done", "failed", "running"])
def test_sensor_judges_a_place_in_the_answer(
    server: Server, known: FakeSupervisor, status: str
) -> None:
    """D24: the first look in the task and the trigger's later ones judge alike."""
    server.answer = lambda _server, _path: (200, json.dumps({"jobs": [{"state": status}]}))
    sensor = HttpSensor(
        task_id="s",
        json_path="jobs[0].state",
        success_values=["done"],
        failure_values=["failed"],
        dag=a_dag(),
    )
    outcome, values = run(sensor, known)
    if status == "running":
        assert outcome.defer is not None
        assert outcome.defer.lane == "poll"
        told = {"status": 200, "found": "failed", "judgement": "failed"}
        method = outcome.defer.next_method
        outcome, _ = run(sensor, next_method=method, next_kwargs=raw({"event": told}))
        assert "gave 'failed', which is among failure_values" in (outcome.error or "")
        told = {"status": 200, "found": "done", "judgement": "success"}
        outcome, values = run(sensor, next_method=method, next_kwargs=raw({"event": told}))
    if status == "failed":
        assert "gave 'failed', which is among failure_values" in (outcome.error or "")
    else:
        assert (outcome.kind, values) == ("success", {"return_value": "done"})


def test_a_deferrable_request(server: Server, known: FakeSupervisor) -> None:
    """D24: the operator gives its slot back; the answer is judged in the task, as without."""
    task = operator(
        endpoint="x",
        deferrable=True,
        response_check=lambda response: response.status_code == 201,
        response_filter=lambda response: [response.json(), response.headers["x-a"]],
    )
    outcome, _ = run(task, known)
    assert not server.seen
    assert outcome.defer is not None
    assert (outcome.defer.lane, outcome.defer.next_method) == ("poll", "execute_complete")
    event = {
        "status": 201, "reason": "Created", "headers": [["X-A", "b"]], "body": b"[1]",
        "method": "POST", "url": "http://h/x",
    }  # fmt: skip
    resumed: dict[str, Any] = {
        "next_method": "execute_complete",
        "next_kwargs": raw({"event": event}),
    }
    assert run(task, **resumed)[1] == {"return_value": [[1], "b"]}
    event |= {"status": 503, "body": b"later"}
    resumed["next_kwargs"] = raw({"event": event})
    assert "POST http://h/x: 503 Service Unavailable: later" in (
        run(task, **resumed)[0].error or ""
    )
    assert operator().deferrable is False
    with pytest.raises(DagError, match="give no auth"):
        operator(deferrable=True, auth=("a", "b"))
