"""One HTTP request over one connection, bounded in every way; h11 knows the protocol.

A connection carries one request: nothing can hide behind another one, and whoever was answered is
gone. What is refused is refused before its body is read.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple

import anyio
import h11
from anyio.abc import SocketStream

__all__ = ["Line", "Refused", "Request"]

_MAX_HEAD = 16 * 1024
_CHUNK = 64 * 1024
_LINGER_S = 2.0
_LINGER_BYTES = 4 << 20


class Refused(Exception):
    """A request that is answered by an error.

    Args:
        status: of HTTP.
        why: one line for whoever asks.
        headers: more of the answer.
    """

    def __init__(self, status: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Request(NamedTuple):
    """The head of a request."""

    method: str
    target: str
    headers: dict[str, str]


class Line:
    """One connection.

    Args:
        stream: of the client.
        max_body: bytes.
    """

    def __init__(self, stream: SocketStream, max_body: int) -> None:
        self._stream = stream
        self._max_body = max_body
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)

    async def head(self) -> Request | None:
        """The request's head; None: the client went away without a word.

        Raises:
            Refused: it is no HTTP, or too long.
        """
        event = await self._next()
        if not isinstance(event, h11.Request):
            return None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        target = event.target.decode("latin-1")
        return Request(event.method.decode("latin-1"), target, headers)

    async def body(self, request: Request) -> bytes:
        """The request's body.

        Raises:
            Refused: it is too large, coded, or breaks off.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "send the body as it is, without a content-encoding")
        said = request.headers.get("content-length", "0")
        if not said.isdecimal() or int(said) > self._max_body:
            raise Refused(413, f"the body has at most {self._max_body} bytes")
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        parts: list[bytes] = []
        size = 0
        while isinstance(event := await self._next(), h11.Data):
            parts.append(bytes(event.data))
            size += len(event.data)
            if size > self._max_body:
                raise Refused(413, f"the body has at most {self._max_body} bytes")
        if not isinstance(event, h11.EndOfMessage):
            raise Refused(400, "the body breaks off")
        return b"".join(parts)

    async def answer(self, status: int, fields: dict[str, Any], headers: dict[str, str]) -> None:
        """Send one line of JSON and say goodbye, in a way that the client gets to read it."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        data = json.dumps(fields).encode() + b"\n"
        head = {
            "content-type": "application/json",
            "content-length": str(len(data)),
            "cache-control": "no-store",
            "connection": "close",
            **headers,
        }
        await self._send(h11.Response(status_code=status, headers=list(head.items())))
        with suppress(h11.LocalProtocolError):  # HEAD: there must be no body
            await self._send(h11.Data(data=data))
            await self._send(h11.EndOfMessage())
        await self._linger()

    async def _linger(self) -> None:
        """Take what the client still sends: with it unread, a close would wipe out the answer."""
        await self._stream.send_eof()
        left = _LINGER_BYTES
        with anyio.move_on_after(_LINGER_S):
            while left > 0:
                left -= len(await self._stream.receive(_CHUNK))

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send(data)

    async def _next(self) -> h11.Event:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                try:
                    data = await self._stream.receive(_CHUNK)
                except anyio.EndOfStream:
                    data = b""
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, "this is no HTTP request") from None
        if isinstance(event, h11.Event):
            return event
        raise Refused(400, "one request for each connection")  # or it changes the protocol
