"""``--callback-port``: takes events of whoever has a token, by ``POST /events/TOKEN``.

It runs beside the lanes and shares nothing with them but the process: its own connection to the
database, at most one statement at a time, and every error ends here. What it knows of a request is
never logged with its token, and what went wrong in here is never told to whoever asks.

    202 stored · 400 no JSON · 404 no such token · 409 used before · 410 expired · 413 too large
    429 too often · 500 an error of ours, its traceback is in the log · 503 not now
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import SocketAttribute, SocketStream, TaskGroup
from sqlalchemy import Engine

from roost.exceptions import ConfigError, ValueNotStorable, ValueTooLarge
from roost.models.engine import is_passing, transact
from roost.models.queries import external
from roost.models.queries.external import NewEvent
from roost.support.clock import SECOND, now_us
from roost.support.config import Config
from roost.support.crypto import Keyring, keyring_of
from roost.support.event_payload import MAX_BYTES, payload_of
from roost.support.event_tokens import EVENTS_PATH, BadToken, Claim, ExpiredToken, read_token
from roost.support.stats import Stats
from roost.triggerer.callback_http import Line, Refused, Request
from roost.triggerer.callback_limits import Rates

__all__ = ["CallbackServer", "check_host"]

log = logging.getLogger(__name__)

_REQUEST_S = 10.0
_MOST_CONNECTIONS = 64
_AGAIN_S = 5.0
_HEALTH = "/healthz"
# What anyio says of a client that closed its connection.
_WENT_AWAY = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


def check_host(config: Config, host: str) -> None:
    """Refuse an address that others reach, unless the configuration allows it.

    Raises:
        ConfigError: it does not.
    """
    if config.triggerer.callback_allow_remote or host == "localhost":
        return
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here:
        raise ConfigError(
            f"callbacks at {host!r} could be read by others on their way: listen at 127.0.0.1 "
            "behind something that speaks TLS, or set triggerer.callback_allow_remote"
        )


class CallbackServer:
    """Takes events.

    Args:
        config: the whole configuration.
        engine: of its own.
        stats: counts the answers.
        on_event: called when an event was stored.
        port: where it listens.
        host: and at which address.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        stats: Stats,
        on_event: Callable[[], None],
        *,
        port: int,
        host: str,
    ) -> None:
        self._engine = engine
        self._stats = stats
        self._on_event = on_event
        self._port = port
        self._host = host
        self._keys: Keyring = keyring_of(config)
        self._keep_us = round(config.triggerer.event_retention * SECOND)
        self._rates = Rates(config.triggerer.callback_rate, time.monotonic())
        # A database that hangs shall cost one thread, not all that the lanes have. Whose request
        # has been given up keeps its turn until its thread is through.
        self._turn = anyio.CapacityLimiter(1)
        self._threads = anyio.CapacityLimiter(1)
        self._group: TaskGroup | None = None
        self._open: dict[int, anyio.CancelScope] = {}  # a connection each, oldest first

    async def run(self) -> None:
        """Serve until cancelled, whatever goes wrong."""
        while True:
            try:
                listener = await anyio.create_tcp_listener(
                    local_host=self._host, local_port=self._port
                )
                where = f"[{self._host}]" if ":" in self._host else self._host
                log.info("taking events at http://%s:%d%sTOKEN", where, self._port, EVENTS_PATH)
                async with listener, anyio.create_task_group() as self._group:
                    await listener.serve(self._connection)
            except OSError as error:
                log.error(
                    "cannot take events at %s port %d: %s; trying again",
                    self._host, self._port, error.strerror or error,
                )  # fmt: skip
            except Exception:
                log.exception("taking events failed; trying again")
            await anyio.sleep(_AGAIN_S)

    # -- one connection ------------------------------------------------------------------------

    async def _connection(self, stream: SocketStream) -> None:
        """Of too many connections the oldest is dropped: who is slow harms only the slow."""
        while len(self._open) >= _MOST_CONNECTIONS:
            self._open.pop(next(iter(self._open))).cancel()
        scope = anyio.CancelScope()
        self._open[id(scope)] = scope
        try:
            with scope:
                async with stream:
                    await self._bounded(stream)
        except (*_WENT_AWAY, OSError):
            pass
        except Exception:
            log.exception("a request for an event failed")
        finally:
            self._open.pop(id(scope), None)

    async def _bounded(self, stream: SocketStream) -> None:
        """One request in a limited time."""
        line = Line(stream, MAX_BYTES)
        with anyio.move_on_after(_REQUEST_S) as scope:
            status, fields, headers = await self._answer(line, stream)
        if scope.cancelled_caught:
            status, fields, headers = 408, {"error": "this took too long"}, {}
        if status:
            self._stats.incr("events.callbacks", status=str(status))
            with anyio.move_on_after(_REQUEST_S):
                await line.answer(status, fields, headers)

    async def _answer(
        self, line: Line, stream: SocketStream
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        try:
            request = await line.head()
            if request is None:
                return 0, {}, {}
            return 202, await self._take(line, request, _client(stream, request)), {}
        except _Healthy:
            return 200, {"status": "ok"}, {}
        except Refused as refused:
            return refused.status, {"error": refused.why}, refused.headers
        except _WENT_AWAY:
            raise
        except Exception:
            log.exception("a request for an event failed")
            return 500, {"error": "internal error"}, {}

    async def _take(self, line: Line, request: Request, client: str) -> dict[str, Any]:
        wait = self._rates.refusal(client, time.monotonic())
        if wait is not None:
            raise Refused(429, "too many requests", retry_after=str(math.ceil(wait)))
        claim = self._claim(request)
        body = await line.body(request)
        step = partial(self._store, claim, body, client)
        try:
            stored = await self._in_turn(step)
        except ValueTooLarge as error:
            raise Refused(413, str(error)) from None
        except ValueNotStorable as error:
            raise Refused(400, " ".join(str(error).split())[:300]) from None
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("an event cannot be stored: %s", str(error).partition("\n")[0])
            raise Refused(503, "not now", retry_after="5") from None
        if not stored:
            raise Refused(409, "this token was used before")
        log.info("event of key %r from %s", claim.key, client)
        self._on_event()
        return {"status": "accepted"}

    async def _in_turn(self, step: Callable[[], bool]) -> bool:
        """The result of a step in a thread, one at a time."""
        assert self._group is not None, "it serves"  # noqa: S101
        job = _Job(step)
        await self._turn.acquire_on_behalf_of(job)
        self._group.start_soon(self._work, job, name="storing an event")
        await job.over.wait()
        if job.error is not None:
            raise job.error
        return job.result

    async def _work(self, job: _Job) -> None:
        try:
            job.result = await anyio.to_thread.run_sync(
                job.step, limiter=self._threads, abandon_on_cancel=True
            )
        except Exception as error:  # whoever waits is told
            job.error = error
        finally:
            self._turn.release_on_behalf_of(job)
            job.over.set()

    def _claim(self, request: Request) -> Claim:
        """What the request's token says; the body has not been read yet."""
        path, _, _ = request.target.partition("?")
        if path == _HEALTH:
            if request.method != "GET":
                raise Refused(405, "GET only", allow="GET")
            raise _Healthy
        if not path.startswith(EVENTS_PATH):
            raise Refused(404, "not found")
        if request.method != "POST":
            raise Refused(405, "POST only", allow="POST")
        try:
            return read_token(self._keys, request.target.removeprefix(EVENTS_PATH), now_us())
        except BadToken:
            raise Refused(404, "not found") from None
        except ExpiredToken:
            raise Refused(410, "this token has expired") from None
        except ConfigError as error:
            log.error("no token can be checked: %s", error)
            raise Refused(503, "not now", retry_after="60") from None

    def _store(self, claim: Claim, body: bytes, client: str) -> bool:
        sealed = self._keys.encrypt(payload_of(body or b"null"))
        event = NewEvent(
            claim.key,
            sealed,
            f"token, from {client}"[:250],
            self._keep_us,
            claim.nonce,
            claim.expires_at,
        )
        return transact(self._engine, lambda tx: external.send(tx, event)) is not None


class _Job:
    """A step on its way through a thread."""

    def __init__(self, step: Callable[[], bool]) -> None:
        self.step = step
        self.over = anyio.Event()
        self.result = False
        self.error: Exception | None = None


class _Healthy(Exception):
    """Somebody asked whether anybody is there."""


def _client(stream: SocketStream, request: Request) -> str:
    """Who asks; whoever a proxy on this host says, for all of its clients have its address."""
    address = stream.extra(SocketAttribute.remote_address, ("?",))  # noqa: S610 - no Django
    peer = str(address[0])
    try:
        if ipaddress.ip_address(peer).is_loopback:
            told = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
            return str(ipaddress.ip_address(told)) if told else peer
    except ValueError:
        pass
    return peer
