"""Sensors: tasks that wait for something, without holding a slot (S29)."""

from roost.sensors.base import BaseSensorOperator
from roost.sensors.filesystem import FileSensor
from roost.sensors.temporal import DateTimeSensor, TimeDeltaSensor

__all__ = ["BaseSensorOperator", "DateTimeSensor", "FileSensor", "TimeDeltaSensor"]
