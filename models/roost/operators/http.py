"""HttpOperator: one request to a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from roost.dag.operator import BaseOperator
from roost.dag.python import context_arguments
from roost.exceptions import DagError, RoostException
from roost.hooks.http import HttpHook, response_from
from roost.triggers.http import HttpRequestTrigger

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpOperator", "SimpleHttpOperator"]


class HttpOperator(BaseOperator):
    """Send one request; the answer's text is the task's return value.

    Deferrable, it leaves its slot while the server takes its time. Then the request may reach the
    server twice, when a triggerer ends just then, and everything about it has to be JSON.

    Args:
        endpoint: path below the connection's address, templated.
        method: GET, POST and so on.
        data: query of a GET, body of a POST, templated.
        headers: templated.
        http_conn_id: the connection.
        response_check: called with the response, and context that it names; False fails the task.
        response_filter: called likewise; what it returns is the return value.
        extra_options: see HttpHook.run.
        log_response: write the answer into the log.
        auth: httpx authentication instead of the connection's login; not while deferred.
        deferrable: wait for the answer in the triggerer. ``core.default_deferrable`` does not
            matter: most requests are over sooner than a deferral is.
        **kwargs: see BaseOperator.
    """

    template_fields = ("endpoint", "data", "headers")
    template_ext = (".json",)

    def __init__(
        self,
        *,
        endpoint: str = "",
        method: str = "POST",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        http_conn_id: str = "http_default",
        response_check: Callable[..., bool] | None = None,
        response_filter: Callable[..., Any] | None = None,
        extra_options: Mapping[str, Any] | None = None,
        log_response: bool = False,
        auth: Any = None,
        deferrable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if deferrable and auth is not None:
            raise DagError(
                f"task {self.task_id!r}: a deferrable request takes its login from the connection; "
                "give no auth"
            )
        self.endpoint = endpoint
        self.method = method
        self.data = data
        self.headers = dict(headers or {})
        self.http_conn_id = http_conn_id
        self.response_check = response_check
        self.response_filter = response_filter
        self.extra_options = dict(extra_options or {})
        self.log_response = log_response
        self.auth = auth
        self.deferrable = deferrable

    def execute(self, context: dict[str, Any]) -> Any:
        """Send it.

        Raises:
            RoostException: no answer, one of status 400 and up, or one that fails the check.
        """
        if self.deferrable:
            options = {k: v for k, v in self.extra_options.items() if k != "check_response"}
            self.defer(
                trigger=HttpRequestTrigger(
                    self.endpoint,
                    self.http_conn_id,
                    self.method,
                    data=self.data,
                    headers=self.headers,
                    extra_options=options,
                ),
                method_name="execute_complete",
            )
        hook = HttpHook(self.method, self.http_conn_id, self.auth)
        response = hook.run(self.endpoint, self.data, self.headers, self.extra_options)
        return self._result(response, context)

    def execute_complete(self, context: dict[str, Any], event: Any) -> Any:
        """Take the answer that a trigger was given.

        Raises:
            RoostException: it is of status 400 and up, or fails the check.
        """
        response = response_from(event)
        if self.extra_options.get("check_response", True):
            HttpHook.check_response(response)
        return self._result(response, context)

    def _result(self, response: httpx.Response, context: dict[str, Any]) -> Any:
        if self.log_response:
            self.log.info("%s", response.text)
        if self.response_check is not None:
            arguments = context_arguments(self.response_check, [response], {}, context)
            if not self.response_check(response, **arguments):
                raise RoostException(f"the answer of {response.url.path!r} fails response_check")
        if self.response_filter is not None:
            arguments = context_arguments(self.response_filter, [response], {}, context)
            return self.response_filter(response, **arguments)
        return response.text


SimpleHttpOperator = HttpOperator
