"""HttpSensor: wait until a server answers as wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from roost.dag.python import context_arguments
from roost.hooks.http import HttpHook
from roost.sensors.base import BaseSensorOperator, PokeReturnValue

__all__ = ["HttpSensor"]


class HttpSensor(BaseSensorOperator):
    """Wait until a request is answered well.

    Deferrable, it waits in the timer lane and makes each request in a task process: a trigger
    could neither be given the connection's password nor call ``response_check``.

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
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("endpoint", "request_params", "headers")
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
        if self.response_check is None:
            return True
        arguments = context_arguments(self.response_check, [response], {}, context)
        found = self.response_check(response, **arguments)
        return found if isinstance(found, PokeReturnValue) else bool(found)
