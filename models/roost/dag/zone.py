"""The time zone of a DAG: light, so that a task process can ask for it."""

from __future__ import annotations

import os
from datetime import timedelta, tzinfo

from roost.dag.definition import DAG
from roost.exceptions import DagError

__all__ = ["dag_timezone", "default_timezone"]


def default_timezone() -> str:
    """``core.default_timezone`` as the process that started this one passed it on."""
    return os.environ.get("ROOST__CORE__DEFAULT_TIMEZONE") or "UTC"


def dag_timezone(dag: DAG) -> str:
    """The IANA name of the zone in which the schedule of ``dag`` is read."""
    return _zone_name(dag.start_date.tzinfo if dag.start_date else None)


def _zone_name(zone: tzinfo | None) -> str:
    """The IANA name of the zone that a DAG's cron is read in: that of its start_date."""
    if zone is None:
        return default_timezone()
    # zoneinfo has key, pendulum has name, pytz and dateutil-likes have zone.
    for attribute in ("key", "name", "zone"):
        name = getattr(zone, attribute, None)
        if isinstance(name, str) and name:
            return name
    offset = zone.utcoffset(None)
    hours = offset // timedelta(hours=1) if offset is not None else 0
    if offset == timedelta(hours=hours):
        # The signs of these names are reversed by tradition: Etc/GMT-2 is two hours ahead.
        return "UTC" if hours == 0 else f"Etc/GMT{-hours:+d}"
    raise DagError(f"time zone {zone!r} of start_date has no IANA name; use zoneinfo.ZoneInfo")
