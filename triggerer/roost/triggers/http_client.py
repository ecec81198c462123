"""The HTTP clients of a runner: one for each connection, with its sockets kept open.

Each connection is asked at a bounded rate, and a bounded number of times at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from roost.dag.connection import Connection
from roost.exceptions import RoostException
from roost.hooks.httprequest import client_arguments, options_of, request_of
from roost.support import typedjson
from roost.triggers.servers import client_library
from roost.triggers.shared import IDLE_S, Shared, lend

if TYPE_CHECKING:
    from types import ModuleType

    import httpx

__all__ = ["LONGEST_ANSWER", "Asked", "ask_all", "ask_one"]

LONGEST_ANSWER = 1_000_000
_AT_ONCE = 20
_MAX_RATE = 50.0
# Of a poll: an answer that takes its time keeps the others of its batch waiting.
_POLL_TIMEOUT_S = 20.0
_LONGEST_POLL_S = 60.0


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


class _Client(Shared):
    """What all requests of one connection and its options share."""

    def __init__(self, library: ModuleType, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.library = library
        arguments = client_arguments(options)
        limits = library.Limits(
            max_connections=_AT_ONCE,
            max_keepalive_connections=_AT_ONCE,
            keepalive_expiry=IDLE_S,  # sockets outlive the time between two polls
        )
        self._http: httpx.AsyncClient = library.AsyncClient(limits=limits, **arguments)
        self._gap = 1 / max(float(options.get("max_rate", _MAX_RATE)), 0.001)
        self._next = 0.0
        self._room = asyncio.Semaphore(_AT_ONCE)

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


@asynccontextmanager
async def _client_of(
    conn_id: str, extra_options: Mapping[str, Any], *, polls: bool
) -> AsyncIterator[tuple[_Client, Connection]]:
    connection = await Connection.get_async(conn_id)
    options = options_of(connection, extra_options)
    if polls:
        options["timeout"] = min(float(options.get("timeout", _POLL_TIMEOUT_S)), _LONGEST_POLL_S)

    async def make() -> _Client:
        library = await client_library("httpx", "http")
        # In a thread: it reads certificates.
        return await asyncio.to_thread(_Client, library, options)

    made_of = typedjson.encode([connection.get_uri(), options]).decode()
    async with lend(_Client, made_of, make) as client:
        yield client, connection


async def ask_one(asked: Asked) -> httpx.Response:
    """The answer to one request.

    Raises:
        OSError: there is none.
        RoostException: there is no such connection, or no package httpx.
    """
    async with _client_of(asked.http_conn_id, asked.extra_options, polls=False) as found:
        client, connection = found
        return await client.send(connection, asked)


async def ask_all(requests: Mapping[str, Asked]) -> dict[str, httpx.Response | BaseException]:
    """The answers, or the errors, to requests of one connection and the same options.

    Raises:
        RoostException: there is no such connection, or no package httpx.
    """
    first = next(iter(requests.values()))
    async with _client_of(first.http_conn_id, first.extra_options, polls=True) as found:
        client, connection = found
        sent = [client.send(connection, asked) for asked in requests.values()]
        answers = await asyncio.gather(*sent, return_exceptions=True)
    return dict(zip(requests, answers, strict=True))
