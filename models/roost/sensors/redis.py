"""Sensors that wait for something in Redis or Valkey."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from roost.dag.connection import Connection
from roost.exceptions import RoostException
from roost.sensors.base import BaseSensorOperator, PokeReturnValue
from roost.sensors.event import EventSensor
from roost.support.clock import to_us
from roost.triggers.redis import RedisKeyTrigger, RedisStreamTrigger

__all__ = ["RedisKeySensor", "RedisStreamSensor"]


class RedisKeySensor(BaseSensorOperator):
    """Wait until a key exists, or has a value; the value, or the element taken, is the result.

    An empty list does not exist: to wait for an element is to wait for the key.

    Args:
        key: which key, templated.
        redis_conn_id: the connection, of the type ``redis`` or ``valkey``.
        value: wait until it is a string of this value, templated.
        pop: take the first element of the list under ``key``; whoever finds that another task was
            quicker goes on waiting. A task that is lost right after it has taken an element loses
            it: use a stream and RedisStreamSensor where that must not be.
        poke_interval: time between two looks, a timedelta or seconds.
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("key", "value")
    has_trigger = True

    def __init__(
        self,
        *,
        key: str,
        redis_conn_id: str = "redis_default",
        value: str | None = None,
        pop: bool = False,
        poke_interval: timedelta | float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.key = key
        self.redis_conn_id = redis_conn_id
        self.value = value
        self.pop = pop

    def poke(self, context: dict[str, Any]) -> PokeReturnValue:
        """Look once, and take an element where that is asked for."""
        try:
            import redis
        except ImportError as error:
            raise RoostException(f"{error}: pip install 'roost[redis]'") from None
        from roost.triggers.redis_client import arguments, refusal, text_of

        client: Any = redis.Redis(**arguments(Connection.get(self.redis_conn_id)))
        try:
            if self.pop:
                element = text_of(client.lpop(self.key))
                return PokeReturnValue(element is not None, element)
            if self.value is None:
                return PokeReturnValue(bool(client.exists(self.key)))
            found = client.get(self.key) == self.value.encode()
            return PokeReturnValue(found, self.value if found else None)
        except redis.RedisError as error:
            raise refusal(self.redis_conn_id, error) from None
        finally:
            client.close()

    def make_trigger(self, context: dict[str, Any]) -> RedisKeyTrigger:
        """Looks every ``poke_interval``, together with all that wait at this server."""
        pause = self.poke_interval.total_seconds()
        return RedisKeyTrigger(self.redis_conn_id, self.key, self.value, pause)

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """The value; or the element, unless another task was quicker."""
        if not self.pop:
            return event["value"]
        return self.poke_again(context, began=to_us(context["ti"].start_date), looks=1)


class RedisStreamSensor(EventSensor):
    """Wait for an entry of a stream; the result is ``{"stream": …, "id": …, "fields": {…}}``.

    In a consumer group each entry goes to one task, at least once: it is acknowledged when the
    event is in Roost's database. Without a group a task sees the first entry after ``last_id``, and
    takes nothing.

    Args:
        stream: its key, templated; need not exist yet.
        redis_conn_id: the connection, of the type ``redis`` or ``valkey``.
        group: the consumer group, templated; one that does not exist is made, and begins at
            ``last_id``.
        last_id: entries after this id only, templated; default: after the moment when the task
            begins to wait, by the worker's clock.
        claim_after: seconds after which an entry that another task has taken and not acknowledged,
            e.g. since it was cleared, is taken from it.
        poke_interval: time between two looks, a timedelta or seconds.
        **kwargs: see BaseSensorOperator; those about looking (``mode``, ``silent_fail``, …) have no
            effect.
    """

    template_fields = ("stream", "group", "last_id")

    def __init__(
        self,
        *,
        stream: str,
        redis_conn_id: str = "redis_default",
        group: str | None = None,
        last_id: str | None = None,
        claim_after: float = 300.0,
        poke_interval: timedelta | float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.stream = stream
        self.redis_conn_id = redis_conn_id
        self.group = group
        self.last_id = last_id
        self.claim_after = claim_after

    def make_trigger(self, context: dict[str, Any]) -> RedisStreamTrigger:
        """Reads the stream."""
        return RedisStreamTrigger(
            self.redis_conn_id,
            self.stream,
            self.group,
            self.last_id,
            self.poke_interval.total_seconds(),
            self.claim_after,
        )
