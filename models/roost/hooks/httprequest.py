"""What an HTTP request is made of: a connection, and what the caller adds to it (S45)."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from roost.exceptions import RoostException

if TYPE_CHECKING:
    import httpx

    from roost.dag.connection import Connection

__all__ = ["Request", "client_arguments", "options_of", "refusal", "request_of", "url_of"]

_OPTIONS = {
    "timeout", "verify", "cert", "allow_redirects", "proxy", "check_response", "max_rate",
}  # fmt: skip


class Request(NamedTuple):
    """The arguments of ``Client.request``."""

    method: str
    url: str
    arguments: dict[str, Any]


def options_of(connection: Connection, extra_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options in a connection's extra, and those that replace them.

    Raises:
        RoostException: there is no such option.
    """
    options = {k: v for k, v in connection.extra_dejson.items() if k in _OPTIONS}
    options.update(extra_options or {})
    if unknown := options.keys() - _OPTIONS:
        known = ", ".join(sorted(_OPTIONS))
        raise RoostException(f"unknown option {sorted(unknown)[0]!r}; there are {known}")
    return options


def request_of(
    library: ModuleType,
    connection: Connection,
    method: str,
    endpoint: str,
    data: Mapping[str, Any] | str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    auth: Any = None,
) -> Request:
    """One request; the arguments are those of ``HttpHook.run``.

    Raises:
        RoostException: there is no host.
    """
    if auth is None and connection.login is not None:
        auth = library.BasicAuth(connection.login, connection.password or "")
    body: dict[str, Any] = {}
    query = dict(params or {})
    if data is not None and method in ("GET", "HEAD", "DELETE"):
        query.update(data if isinstance(data, Mapping) else library.QueryParams(data))
    elif data is not None:
        body = {"data" if isinstance(data, Mapping) else "content": data}
    if json is not None:
        body["json"] = json
    own = {k: str(v) for k, v in connection.extra_dejson.items() if k not in _OPTIONS}
    arguments = {"params": query or None, "headers": {**own, **(headers or {})}, "auth": auth}
    return Request(method, url_of(connection, endpoint), {**arguments, **body})


def url_of(connection: Connection, endpoint: str) -> str:
    """The address of ``endpoint`` below the connection's, or a whole URL.

    Raises:
        RoostException: neither it nor the connection names a host.
    """
    if "://" in endpoint:
        return endpoint
    host = connection.host or ""
    if "://" not in host:
        if not host:
            raise RoostException(f"connection {connection.conn_id!r} has no host")
        scheme = connection.schema or connection.conn_type or "http"
        host = f"{scheme if scheme in ('http', 'https') else 'http'}://{host}"
    port = "" if connection.port is None else f":{connection.port}"
    return f"{host.rstrip('/')}{port}/{endpoint.lstrip('/')}" if endpoint else host + port


def client_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Client`` and ``AsyncClient`` are made with."""
    verify: Any = options.get("verify", True)
    if isinstance(verify, str) or options.get("cert"):
        import ssl

        context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
        cert = options.get("cert")
        if cert:
            context.load_cert_chain(*([cert] if isinstance(cert, str) else cert))
        verify = context
    return {
        "timeout": options.get("timeout", 60.0),
        "follow_redirects": options.get("allow_redirects", True),
        "verify": verify,
        "proxy": options.get("proxy"),
    }


def refusal(response: httpx.Response) -> str:
    """What a response that is none of the wanted comes to, with the beginning of what it says."""
    said = " ".join(response.text[:500].split())
    request = response.request
    return (
        f"{request.method} {request.url.copy_with(query=None, userinfo=b'')}: "
        f"{response.status_code} {response.reason_phrase}{': ' + said if said else ''}"
    )
