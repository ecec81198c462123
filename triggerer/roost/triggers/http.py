"""HttpTrigger and HttpRequestTrigger: answers of a server (poll lane)."""

from __future__ import annotations

import json as plain_json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException
from roost.support import jsonpath, typedjson
from roost.triggers.judging import Judgement, checked_values, judge
from roost.triggers.pooled import PooledTrigger, events_of

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpRequestTrigger", "HttpTrigger", "judged"]

# Statuses that say "later", besides those from 500 on.
_PASSING = (408, 425, 429)


class _Request:
    """What HttpTrigger and HttpRequestTrigger ask."""

    def __init__(
        self,
        endpoint: str = "",
        http_conn_id: str = "http_default",
        method: str = "GET",
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | str | bytes | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        extra_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.http_conn_id = http_conn_id
        self.method = method.upper()
        self.params = dict(params or {})
        self.data = dict(data) if isinstance(data, Mapping) else data
        self.json = json
        self.headers = dict(headers or {})
        self.extra_options = dict(extra_options or {})

    def asked(self) -> dict[str, Any]:
        """The arguments again."""
        return {
            "endpoint": self.endpoint,
            "http_conn_id": self.http_conn_id,
            "method": self.method,
            "params": self.params,
            "data": self.data,
            "json": self.json,
            "headers": self.headers,
            "extra_options": self.extra_options,
        }


class HttpTrigger(_Request, PooledTrigger):
    """Fires when a server answers as wanted.

    Its payload is ``{"status": 200, "found": value, "judgement": "success" or "failed"}``; what is
    found is the value at ``json_path``, without one the answer's text, of at most 100,000
    characters.

    All triggers of a runner that ask one connection are asked about together, over connections
    that are kept open; the same request is sent once for all that wait for it. ``max_rate`` in the
    connection's extra bounds the requests in a second, of this runner; it is 50.

    Args:
        endpoint: path below the connection's address, or a whole URL.
        http_conn_id: the connection.
        method: GET, POST and so on; it is sent again and again.
        params: query.
        data: query of a GET, HEAD or DELETE; body of any other: a mapping as a form.
        json: body, sent as JSON.
        headers: besides those of the connection.
        extra_options: see HttpHook.run; ``timeout`` is 20 s unless given, and at most 60 s.
        status: statuses to wait for; None: any below 400.
        not_yet: statuses that mean "not yet". Any other is an error; those from 500 on, 408, 425
            and 429 are forgiven some times in a row.
        json_path: a place in the answer, like ``jobs[0].state`` or ``$['a name'].rows``; an answer
            that has nothing there means "not yet".
        success_values: what to wait for there; None: anything but null, 0, false and empty.
        failure_values: what to give up at.
        poll_interval: seconds between two requests.
        max_poll_interval: up to which the interval grows while nothing happens.

    Raises:
        RoostException: an argument is wrong.
    """

    poll_timeout = 120.0
    max_batch = 500

    def __init__(
        self,
        endpoint: str = "",
        http_conn_id: str = "http_default",
        method: str = "GET",
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | str | bytes | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        extra_options: Mapping[str, Any] | None = None,
        status: Sequence[int] | None = None,
        not_yet: Sequence[int] = (404,),
        json_path: str | None = None,
        success_values: Sequence[Any] | None = None,
        failure_values: Sequence[Any] = (),
        poll_interval: float = 5.0,
        max_poll_interval: float | None = None,
    ) -> None:
        super().__init__(endpoint, http_conn_id, method, params, data, json, headers, extra_options)
        self.status = None if status is None else [int(one) for one in status]
        self.not_yet = [int(one) for one in not_yet]
        self.json_path = None if json_path is None else jsonpath.check_path(json_path)
        self.success_values = (
            None if success_values is None else checked_values("success_values", success_values)
        )
        self.failure_values = checked_values("failure_values", failure_values)
        if (self.success_values is not None or self.failure_values) and json_path is None:
            raise RoostException("success_values and failure_values need a json_path")
        if poll_interval <= 0:
            raise RoostException(f"poll_interval must be more than 0 s, not {poll_interval!r}")
        self.poll_interval = float(poll_interval)
        self.max_poll_interval = max_poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        own = {
            "status": self.status,
            "not_yet": self.not_yet,
            "json_path": self.json_path,
            "success_values": self.success_values,
            "failure_values": self.failure_values,
            "poll_interval": self.poll_interval,
            "max_poll_interval": self.max_poll_interval,
        }
        return ("roost.triggers.HttpTrigger", {**self.asked(), **own})

    def poll_key(self) -> str:
        """All of it: what differs in its judgement only is sent once all the same."""
        return typedjson.encode(self.serialize()[1]).decode()

    def poll_group(self) -> str:
        """The connection, and how it is used."""
        return typedjson.encode([self.http_conn_id, self.extra_options]).decode()

    @classmethod
    async def poll_many(
        cls, triggers: Mapping[str, Self]
    ) -> Mapping[str, TriggerEvent | BaseException]:
        """Send each different request once."""
        from roost.triggers.http_client import ask_all  # sensors make this in many processes

        requests: dict[str, Self] = {}
        of: dict[str, str] = {}
        for key, trigger in triggers.items():
            of[key] = typedjson.encode(trigger.asked()).decode()
            requests.setdefault(of[key], trigger)
        answers = await ask_all(requests)
        return events_of(triggers, of, answers, cls.event_of)

    def event_of(self, response: httpx.Response) -> TriggerEvent | BaseException | None:
        """What an answer means; None: not yet."""
        from roost.hooks.httprequest import refusal

        status = response.status_code
        if status in self.not_yet:
            return None
        if status not in self.status if self.status is not None else status >= 400:
            text = refusal(response)
            passing = status >= 500 or status in _PASSING
            return OSError(text) if passing else RoostException(text)
        try:
            found, judgement = judged(
                response, self.json_path, self.success_values, self.failure_values
            )
        except RoostException as error:
            return error
        if judgement is None:
            return None
        return TriggerEvent({"status": status, "found": found, "judgement": judgement})

    def __repr__(self) -> str:
        where = f" at {self.json_path}" if self.json_path else ""
        return f"<HttpTrigger {self.method} {self.endpoint or '/'} of {self.http_conn_id}{where}>"


def judged(
    response: httpx.Response,
    json_path: str | None,
    success_values: Sequence[Any] | None,
    failure_values: Sequence[Any],
) -> tuple[Any, Judgement | None]:
    """What a good answer holds, and whether that is what is waited for.

    Raises:
        RoostException: it is to be JSON and is not.
    """
    if json_path is None:
        return response.text[:100_000].replace("\0", ""), "success"
    try:
        document = plain_json.loads(response.text)
    except (ValueError, RecursionError):
        raise RoostException(
            f"{response.request.method} {response.request.url.path}: the answer is not JSON, and "
            "a json_path is given"
        ) from None
    found = jsonpath.value_at(document, json_path)
    if found is jsonpath.MISSING:
        return None, None
    return found, judge(found, success_values, failure_values)


class HttpRequestTrigger(_Request, BaseTrigger):
    """Sends one request and fires with the whole answer, however long that takes.

    Its payload is ``{"status", "reason", "headers", "body", "method", "url"}``, the body as bytes
    of at most 500,000. When the triggerer ends or hands over meanwhile, the request is sent again
    elsewhere. Arguments: as of HttpTrigger.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return ("roost.triggers.HttpRequestTrigger", self.asked())

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Send it."""
        from roost.triggers.http_client import LONGEST_ANSWER, ask_one

        response = await ask_one(self)
        if len(response.content) > LONGEST_ANSWER // 2:
            raise RoostException(
                f"the answer has {len(response.content):,} bytes, more than an event may carry"
            )
        yield TriggerEvent(
            {
                "status": response.status_code,
                "reason": response.reason_phrase,
                "headers": [list(pair) for pair in response.headers.multi_items()],
                "body": response.content,
                "method": response.request.method,
                "url": str(response.request.url),
            }
        )

    def __repr__(self) -> str:
        return f"<HttpRequestTrigger {self.method} {self.endpoint or '/'} of {self.http_conn_id}>"
