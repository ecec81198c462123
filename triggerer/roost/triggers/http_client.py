"""The HTTP clients of a runner: one for each connection, with its sockets kept open.

A client is made again when its connection has changed, and closed when nobody has asked for a
while. Each connection is asked at a bounded rate, and a bounded number of times at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from roost.dag.connection import Connection
from roost.exceptions import RoostException
from roost.hooks.httprequest import client_arguments, options_of, request_of
from roost.support import typedjson
from roost.triggers.servers import client_library

if TYPE_CHECKING:
    from types import ModuleType

    import httpx

__all__ = ["LONGEST_ANSWER", "Asked", "ask_all", "ask_one"]

LONGEST_ANSWER = 1_000_000
_AT_ONCE = 20
_MAX_RATE = 50.0
_IDLE_S = 120.0
_POLL_TIMEOUT_S = 60.0


class Asked(Protocol):
    """A request: the arguments of HttpHook and its ``run``."""

    endpoint: str
    http_conn_id: str
    method: str
    params: dict[str, Any]
    data: dict[str, Any] | str | bytes | None
    json: Any
    headers: dict[str, str]
    extra_options: dict[str, Any]


class _Client:
    """What all requests of one connection and its options share."""

    def __init__(self, library: ModuleType, options: Mapping[str, Any]) -> None:
        self.library = library
        arguments = client_arguments(options)
        limits = library.Limits(
            max_connections=_AT_ONCE,
            max_keepalive_connections=_AT_ONCE,
            keepalive_expiry=_IDLE_S,  # sockets outlive the time between two polls
        )
        self._http: httpx.AsyncClient = library.AsyncClient(limits=limits, **arguments)
        self._gap = 1 / max(float(options.get("max_rate", _MAX_RATE)), 0.001)
        self._next = 0.0
        self._room = asyncio.Semaphore(_AT_ONCE)
        self.users = 0
        self.used_at = 0.0

    async def send(self, connection: Connection, asked: Asked) -> httpx.Response:
        """One answer, whatever its status.

        Raises:
            OSError: there is none.
            RoostException: it is too long, or there can be none.
        """
        library = self.library
        method, url, arguments = request_of(
            library, connection, asked.method, asked.endpoint, asked.data, asked.headers,
            params=asked.params, json=asked.json,
        )  # fmt: skip
        async with self._room:
            await self._await_turn()
            try:
                async with self._http.stream(method, url, **arguments) as response:
                    return await _read(library, response)
            except (library.InvalidURL, library.UnsupportedProtocol) as error:
                raise RoostException(f"{method} {url}: {error}") from None
            except library.HTTPError as error:
                raise OSError(f"{method} {url}: {error or repr(error)}") from None

    async def _await_turn(self) -> None:
        now = asyncio.get_running_loop().time()
        turn = max(now, self._next)
        self._next = turn + self._gap
        if turn > now:
            await asyncio.sleep(turn - now)

    async def close(self) -> None:
        """Close its sockets."""
        await self._http.aclose()


async def _read(library: ModuleType, response: httpx.Response) -> httpx.Response:
    """The response with its body, unless that is too long."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > LONGEST_ANSWER:
            raise RoostException(
                f"{response.request.method} {response.request.url.path}: the answer is longer than "
                f"{LONGEST_ANSWER:,} bytes; ask for less"
            )
    # Decoded already: these two would be applied once more.
    dropped = ("content-encoding", "transfer-encoding")
    headers = [pair for pair in response.headers.multi_items() if pair[0] not in dropped]
    made: httpx.Response = library.Response(
        response.status_code, headers=headers, content=bytes(body), request=response.request
    )
    return made


_Clients = dict[str, _Client]  # by what each was made of
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, _Clients] = WeakKeyDictionary()


@asynccontextmanager
async def _client_of(
    conn_id: str, extra_options: Mapping[str, Any], longest: float | None
) -> AsyncIterator[tuple[_Client, Connection]]:
    connection = await Connection.get_async(conn_id)
    options = options_of(connection, extra_options)
    if longest is not None:
        options["timeout"] = min(float(options.get("timeout", longest)), longest)
    loop = asyncio.get_running_loop()
    clients = _clients.setdefault(loop, {})
    made_of = typedjson.encode([connection.get_uri(), options]).decode()
    client = clients.get(made_of)
    if client is None:
        library = await client_library("httpx", "http")
        # In a thread: it reads certificates.
        client = await asyncio.to_thread(_Client, library, options)
        clients[made_of] = client
        _close_when_idle(loop, made_of, client)
    client.users += 1
    try:
        yield client, connection
    finally:
        client.users -= 1
        client.used_at = loop.time()


def _close_when_idle(loop: asyncio.AbstractEventLoop, made_of: str, client: _Client) -> None:
    """Close a client that nobody has used for a while: its connection has changed, or its tasks
    have what they waited for."""

    def look() -> None:
        left = client.used_at + _IDLE_S - loop.time()
        if client.users or left > 0:
            loop.call_later(max(left, 1.0), look, context=context)
        else:
            clients = _clients.get(loop, {})
            if clients.get(made_of) is client:
                del clients[made_of]
            closing.append(context.run(loop.create_task, client.close()))

    closing: list[asyncio.Task[None]] = []  # kept: a loop has only weak references
    context = Context()  # nobody's work in particular
    client.used_at = loop.time()
    loop.call_later(_IDLE_S, look, context=context)


async def ask_one(asked: Asked) -> httpx.Response:
    """The answer to one request.

    Raises:
        OSError: there is none.
        RoostException: there is no such connection, or no package httpx.
    """
    async with _client_of(asked.http_conn_id, asked.extra_options, None) as (client, connection):
        return await client.send(connection, asked)


async def ask_all(requests: Mapping[str, Asked]) -> dict[str, httpx.Response | BaseException]:
    """The answers, or the errors, to requests of one connection and the same options.

    Raises:
        RoostException: there is no such connection, or no package httpx.
    """
    first = next(iter(requests.values()))
    async with _client_of(first.http_conn_id, first.extra_options, _POLL_TIMEOUT_S) as found:
        client, connection = found
        sent = [client.send(connection, asked) for asked in requests.values()]
        answers = await asyncio.gather(*sent, return_exceptions=True)
    return dict(zip(requests, answers, strict=True))
