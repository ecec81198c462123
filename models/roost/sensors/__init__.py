"""Sensors: tasks that wait for something, mostly without holding a slot (S29)."""

from roost.sensors.amqp import AmqpSensor
from roost.sensors.base import BaseSensorOperator, PokeReturnValue
from roost.sensors.bash import BashSensor
from roost.sensors.external_event import ExternalEventSensor
from roost.sensors.external_task import ExternalTaskSensor
from roost.sensors.filesystem import FileSensor
from roost.sensors.http import HttpSensor
from roost.sensors.postgres import PgNotifySensor
from roost.sensors.python import PythonSensor
from roost.sensors.redis import RedisKeySensor, RedisStreamSensor
from roost.sensors.sql import SqlSensor
from roost.sensors.temporal import (
    CronSensor,
    DateTimeSensor,
    DateTimeSensorAsync,
    TimeDeltaSensor,
    TimeDeltaSensorAsync,
    TimeSensor,
    TimeSensorAsync,
)

__all__ = [
    "AmqpSensor",
    "BaseSensorOperator",
    "BashSensor",
    "CronSensor",
    "DateTimeSensor",
    "DateTimeSensorAsync",
    "ExternalEventSensor",
    "ExternalTaskSensor",
    "FileSensor",
    "HttpSensor",
    "PgNotifySensor",
    "PokeReturnValue",
    "PythonSensor",
    "RedisKeySensor",
    "RedisStreamSensor",
    "SqlSensor",
    "TimeDeltaSensor",
    "TimeDeltaSensorAsync",
    "TimeSensor",
    "TimeSensorAsync",
]
