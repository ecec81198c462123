"""HttpHook: requests to a server whose address and login are a connection (S45)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from roost.exceptions import RoostException
from roost.hooks.base import BaseHook
from roost.hooks.httprequest import client_arguments, options_of, refusal, request_of, url_of

if TYPE_CHECKING:
    from types import ModuleType

    import httpx

__all__ = ["HttpHook", "response_from"]


class HttpHook(BaseHook):
    """Requests to the server of a connection.

    Host, port and ``schema`` (``http`` or ``https``) of the connection are its address, login and
    password are basic authentication. Its extra holds headers, and besides them any of the
    options below.

    Args:
        method: GET, POST and so on.
        http_conn_id: the connection.
        auth: httpx authentication instead of the connection's login.
    """

    default_conn_id = "http_default"

    def __init__(
        self, method: str = "POST", http_conn_id: str = default_conn_id, auth: Any = None
    ) -> None:
        self.method = method.upper()
        self.http_conn_id = http_conn_id
        self.auth = auth

    def run(
        self,
        endpoint: str = "",
        data: Mapping[str, Any] | str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        extra_options: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
    ) -> httpx.Response:
        """Send one request; it is not repeated.

        Args:
            endpoint: path below the connection's address, or a whole URL.
            data: query of a GET, HEAD or DELETE; body of any other: a mapping as a form.
            headers: besides those of the connection.
            extra_options: ``timeout`` in seconds (default 60), ``verify`` (False or a CA file),
                ``cert``, ``allow_redirects`` (default True), ``proxy``, ``check_response`` (False
                takes any status); ``max_rate`` is for triggers.
            params: query of any request.
            json: body, sent as JSON.

        Raises:
            NotFound: there is no such connection.
            RoostException: there is no package httpx, no answer, or one of status 400 and up.
        """
        library = _httpx()
        connection = self.get_connection(self.http_conn_id)
        options = options_of(connection, extra_options)
        request = request_of(
            library,
            connection,
            self.method,
            endpoint,
            data,
            headers,
            params=params,
            json=json,
            auth=self.auth,
        )
        with library.Client(**client_arguments(options)) as client:
            try:
                response: httpx.Response = client.request(
                    request.method, request.url, **request.arguments
                )
            except (library.HTTPError, library.InvalidURL) as error:
                raise RoostException(
                    f"{request.method} {request.url}: {error or repr(error)}"
                ) from None
        if options.get("check_response", True):
            self.check_response(response)
        return response

    def url(self, endpoint: str) -> str:
        """The address of ``endpoint``.

        Raises:
            RoostException: neither it nor the connection names a host.
        """
        if "://" in endpoint:
            return endpoint
        return url_of(self.get_connection(self.http_conn_id), endpoint)

    @staticmethod
    def check_response(response: httpx.Response) -> None:
        """Raise for a status of 400 and up, with the beginning of what the server says."""
        if response.status_code >= 400:
            raise RoostException(refusal(response))


def response_from(event: Mapping[str, Any]) -> httpx.Response:
    """The response that HttpRequestTrigger fires with.

    Raises:
        RoostException: there is no package httpx.
    """
    library = _httpx()
    response: httpx.Response = library.Response(
        event["status"],
        headers=[tuple(pair) for pair in event["headers"]],
        content=event["body"],
        request=library.Request(event["method"], event["url"]),
    )
    return response


def _httpx() -> ModuleType:
    """The package, imported when the first request is made: few tasks pay for it."""
    try:
        import httpx
    except ImportError:
        raise RoostException("HTTP needs the package httpx: pip install 'roost[http]'") from None
    return httpx
