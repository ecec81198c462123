"""What several commands read and say, without a database: moments, conf, names, counts."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

import click

from roost.cli.output import paint
from roost.dag.environ import lookup
from roost.exceptions import NotFound
from roost.support import typedjson
from roost.support.clock import SECOND, to_us

__all__ = ["conf_of", "counted", "duration_of", "moment_of", "not_found", "warn_of_shadow"]

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)([smhd]?)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_S = 366 * 86_400


def conf_of(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str:
    """Callback of ``--conf``: a JSON object, as the database stores it."""
    if text is None:
        return "{}"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.BadParameter('give a JSON object such as {"day": "2026-01-31"}')
    return typedjson.encode(value, name="conf").decode()


def moment_of(text: str, zone: str) -> int:
    """A logical date in ISO 8601 as microseconds; ``zone`` is meant where it names none.

    Raises:
        UsageError: it is none, or so near the ends of the calendar that intervals reach over them.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no ISO 8601 moment such as 2026-01-31T06:00") from None
    if not 1 < moment.year < 9999:
        raise click.UsageError(f"{text!r} is out of range; give a year from 2 to 9998")
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone)))


def duration_of(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    """Callback of a time such as ``90s``, ``15m``, ``2h`` or ``7d``, in microseconds."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or not 0 < float(found[1]) * _UNITS[found[2]] <= _LONGEST_S:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 15m, 2h or 7d")
    return round(float(found[1]) * _UNITS[found[2]] * SECOND)


def counted(states: Iterable[str]) -> str:
    """``3 success, 1 skipped``."""
    return ", ".join(f"{count} {paint(state)}" for state, count in Counter(states).most_common())


def not_found(what: str, name: str, known: Iterable[str], remedy: str) -> NotFound:
    """The error for a name that does not exist, with the nearest one that does."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else remedy
    return NotFound(f"there is no {what} {name!r}; {hint}")


def warn_of_shadow(kind: str, name: str) -> None:
    """Say so when the environment has a Variable (``VAR``) or Connection (``CONN``) of the name."""
    if lookup(kind, name) is not None:
        variable = f"{kind}_{name.upper()}"
        click.echo(
            f"roost: the environment has ROOST_{variable} or AIRFLOW_{variable}, which is read "
            "first; unset it where the daemons start",
            err=True,
        )
