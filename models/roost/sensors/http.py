"""HttpSensor: wait until a server answers as wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from roost.dag.python import context_arguments
from roost.hooks.http import HttpHook
from roost.sensors.base import BaseSensorOperator, PokeReturnValue
from roost.triggers.http import HttpTrigger, judged
from roost.triggers.judging import told

__all__ = ["HttpSensor"]


class HttpSensor(BaseSensorOperator):
    """Wait until a request is answered well.

    Deferrable, it leaves the requests to a trigger, where equal requests of many tasks are one.
    With ``response_check``, ``silent_fail`` or ``never_fail`` it waits in the timer lane instead
    and makes each request in a task process: a trigger calls no function of the DAG file.

    Args:
        endpoint: path below the connection's address, templated.
        http_conn_id: the connection.
        method: GET, POST and so on.
        request_params: query of a GET, body of a POST, templated.
        headers: templated.
        response_check: called with the response, and context that it names; whether it is so.
            A PokeReturnValue leaves an XCom, too.
        response_error_codes_allowlist: statuses that mean "not yet"; any other of 400 and up
            fails. Default: 404.
        extra_options: see HttpHook.run.
        json_path: a place in the answer, templated, like ``jobs[0].state`` or ``$['a name'].rows``;
            what stands there is kept as an XCom, an answer that has nothing there means "not yet".
        success_values: what to wait for there; None: anything but null, 0, false and empty.
        failure_values: what fails the sensor at once.
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("endpoint", "request_params", "headers", "json_path")
    has_trigger = True

    def __init__(
        self,
        *,
        endpoint: str = "",
        http_conn_id: str = "http_default",
        method: str = "GET",
        request_params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        response_check: Callable[..., Any] | None = None,
        response_error_codes_allowlist: Sequence[str | int] | None = None,
        extra_options: Mapping[str, Any] | None = None,
        json_path: str | None = None,
        success_values: Sequence[Any] | None = None,
        failure_values: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.http_conn_id = http_conn_id
        self.method = method
        self.request_params = dict(request_params or {})
        self.headers = dict(headers or {})
        self.response_check = response_check
        codes = (
            ["404"] if response_error_codes_allowlist is None else response_error_codes_allowlist
        )
        self.response_error_codes_allowlist = [str(code) for code in codes]
        self.extra_options = dict(extra_options or {})
        self.json_path = json_path
        self.success_values = success_values
        self.failure_values = failure_values

    def poke(self, context: dict[str, Any]) -> bool | PokeReturnValue:
        """Send one request."""
        hook = HttpHook(self.method, self.http_conn_id)
        options = {**self.extra_options, "check_response": False}
        response = hook.run(self.endpoint, self.request_params or None, self.headers, options)
        if str(response.status_code) in self.response_error_codes_allowlist:
            self.log.info("not yet: status %d", response.status_code)
            return False
        if self.extra_options.get("check_response", True):
            hook.check_response(response)
        if self.json_path is not None:
            found, judgement = judged(
                response, self.json_path, self.success_values, self.failure_values
            )
            if judgement is None:
                return False
            told(judgement, found, f"the answer at {self.json_path}")
            if self.response_check is None:
                return PokeReturnValue(True, found)
        if self.response_check is None:
            return True
        arguments = context_arguments(self.response_check, [response], {}, context)
        found = self.response_check(response, **arguments)
        return found if isinstance(found, PokeReturnValue) else bool(found)

    def make_trigger(self, context: dict[str, Any]) -> HttpTrigger | None:
        """Sends the same request every ``poke_interval``; None where only a process can judge."""
        if self.response_check is not None or self.silent_fail or self.never_fail:
            return None
        options = {k: v for k, v in self.extra_options.items() if k != "check_response"}
        codes = self.response_error_codes_allowlist
        any_status = not self.extra_options.get("check_response", True)
        body = {"data": self.request_params} if self.request_params else {}
        return HttpTrigger(
            self.endpoint,
            self.http_conn_id,
            self.method,
            headers=self.headers,
            extra_options=options,
            status=range(100, 600) if any_status else None,
            not_yet=[int(code) for code in codes],
            json_path=self.json_path,
            success_values=self.success_values,
            failure_values=self.failure_values,
            poll_interval=self.poke_interval.total_seconds(),
            max_poll_interval=self.longest_interval(),
            **body,
        )

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """What stands at ``json_path``."""
        self.log.info("status %d, found %r", event["status"], event["found"])
        told(event["judgement"], event["found"], f"the answer at {self.json_path}")
        return event["found"] if self.json_path is not None else None
