"""HttpHook: requests to a server whose address and login are a connection (S45)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from roost.exceptions import RoostException
from roost.hooks.base import BaseHook

if TYPE_CHECKING:
    from types import ModuleType

    import httpx

__all__ = ["HttpHook"]

_OPTIONS = {"timeout", "verify", "cert", "allow_redirects", "proxy", "check_response"}


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
                takes any status).
            params: query of any request.
            json: body, sent as JSON.

        Raises:
            NotFound: there is no such connection.
            RoostException: there is no package httpx, no answer, or one of status 400 and up.
        """
        library = _httpx()
        connection = self.get_connection(self.http_conn_id)
        extra = dict(connection.extra_dejson)
        options: dict[str, Any] = {name: extra.pop(name) for name in _OPTIONS & extra.keys()}
        options.update(extra_options or {})
        if unknown := options.keys() - _OPTIONS:
            known = ", ".join(sorted(_OPTIONS))
            raise RoostException(f"unknown option {sorted(unknown)[0]!r}; there are {known}")
        auth = self.auth
        if auth is None and connection.login is not None:
            auth = library.BasicAuth(connection.login, connection.password or "")
        url = self.url(endpoint)
        body: dict[str, Any] = {}
        query = dict(params or {})
        if data is not None and self.method in ("GET", "HEAD", "DELETE"):
            query.update(data if isinstance(data, Mapping) else library.QueryParams(data))
        elif data is not None:
            body = {"data" if isinstance(data, Mapping) else "content": data}
        if json is not None:
            body["json"] = json
        with self._client(library, options) as client:
            try:
                response: httpx.Response = client.request(
                    self.method,
                    url,
                    params=query or None,
                    headers={**{k: str(v) for k, v in extra.items()}, **(headers or {})},
                    auth=auth,
                    **body,
                )
            except (library.HTTPError, library.InvalidURL) as error:
                raise RoostException(f"{self.method} {url}: {error or repr(error)}") from None
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
        connection = self.get_connection(self.http_conn_id)
        host = connection.host or ""
        if "://" not in host:
            if not host:
                raise RoostException(f"connection {self.http_conn_id!r} has no host")
            scheme = connection.schema or connection.conn_type or "http"
            host = f"{scheme if scheme in ('http', 'https') else 'http'}://{host}"
        port = "" if connection.port is None else f":{connection.port}"
        return f"{host.rstrip('/')}{port}/{endpoint.lstrip('/')}" if endpoint else host + port

    @staticmethod
    def check_response(response: httpx.Response) -> None:
        """Raise for a status of 400 and up, with the beginning of what the server says."""
        if response.status_code >= 400:
            said = " ".join(response.text[:500].split())
            request = response.request
            raise RoostException(
                f"{request.method} {request.url.copy_with(query=None, userinfo=b'')}: "
                f"{response.status_code} {response.reason_phrase}{': ' + said if said else ''}"
            )

    @staticmethod
    def _client(library: ModuleType, options: Mapping[str, Any]) -> httpx.Client:
        verify: Any = options.get("verify", True)
        if isinstance(verify, str) or options.get("cert"):
            import ssl

            context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
            cert = options.get("cert")
            if cert:
                context.load_cert_chain(*([cert] if isinstance(cert, str) else cert))
            verify = context
        made: Callable[..., Any] = library.Client
        client: httpx.Client = made(
            timeout=options.get("timeout", 60.0),
            follow_redirects=options.get("allow_redirects", True),
            verify=verify,
            proxy=options.get("proxy"),
        )
        return client


def _httpx() -> ModuleType:
    """The package, imported when the first request is made: few tasks pay for it."""
    try:
        import httpx
    except ImportError:
        raise RoostException("HTTP needs the package httpx: pip install 'roost[http]'") from None
    return httpx
