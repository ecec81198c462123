"""Triggers: what a deferred task waits for."""

from roost.dag.callback_url import callback_url
from roost.dag.event_trigger import BaseEventTrigger, StreamItem
from roost.dag.starting import StartTriggerArgs
from roost.dag.trigger import (
    BaseTrigger,
    TaskFailedEvent,
    TaskSkippedEvent,
    TaskSuccessEvent,
    TriggerEvent,
)
from roost.triggers.amqp import AmqpTrigger
from roost.triggers.events import (
    AmqpEventTrigger,
    FileEventTrigger,
    PgNotifyEventTrigger,
    RedisStreamEventTrigger,
)
from roost.triggers.external import ExternalTrigger
from roost.triggers.file import FileDeleteTrigger, FileTrigger
from roost.triggers.http import HttpRequestTrigger, HttpTrigger
from roost.triggers.pooled import PooledTrigger
from roost.triggers.postgres import PgNotifyTrigger
from roost.triggers.process import ProcessTrigger
from roost.triggers.redis import RedisKeyTrigger, RedisStreamTrigger
from roost.triggers.runs import DagRunTrigger
from roost.triggers.sql import SqlTrigger
from roost.triggers.temporal import CronTrigger, DateTimeTrigger, TimeDeltaTrigger

__all__ = [
    "AmqpEventTrigger",
    "AmqpTrigger",
    "BaseEventTrigger",
    "BaseTrigger",
    "CronTrigger",
    "DagRunTrigger",
    "DateTimeTrigger",
    "ExternalTrigger",
    "FileDeleteTrigger",
    "FileEventTrigger",
    "FileTrigger",
    "HttpRequestTrigger",
    "HttpTrigger",
    "PgNotifyEventTrigger",
    "PgNotifyTrigger",
    "PooledTrigger",
    "ProcessTrigger",
    "RedisKeyTrigger",
    "RedisStreamEventTrigger",
    "RedisStreamTrigger",
    "SqlTrigger",
    "StartTriggerArgs",
    "StreamItem",
    "TaskFailedEvent",
    "TaskSkippedEvent",
    "TaskSuccessEvent",
    "TimeDeltaTrigger",
    "TriggerEvent",
    "callback_url",
]
