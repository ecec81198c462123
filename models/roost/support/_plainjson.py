"""The encoding half of :mod:`roost.support.typedjson`: check a value, and tag what JSON lacks."""

from __future__ import annotations

import base64
import enum
import math
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final, NoReturn
from zoneinfo import ZoneInfo

import msgspec

__all__ = ["MAX_DEPTH", "TAG", "Refused", "plain", "too_large"]

TAG: Final = "$roost"
MAX_DEPTH: Final = 32

_INT_MIN = -(1 << 63)
_INT_MAX = (1 << 64) - 1
_ONE_OF = (
    "None, bool, int, float, str, list, dict, datetime, date, timedelta, timezone, ZoneInfo, "
    "Decimal, bytes, set, frozenset or tuple"
)
_encoder = msgspec.json.Encoder()


class Refused(Exception):
    """Why a value cannot be stored; the path grows outwards while the stack unwinds.

    Attributes:
        size: bytes of a part that is too large by itself; 0 for any other reason.
    """

    def __init__(self, reason: str, size: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.size = size
        self.path: list[str] = []


def plain(value: Any, depth: int, limit: int) -> object:
    """The value in types msgspec writes faithfully; the same object where nothing changes.

    Raises:
        Refused: with the reason and the path, innermost step first.
    """
    kind = type(value)
    if kind is str:
        _check_text(value, limit)
        return value
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if _INT_MIN <= value <= _INT_MAX else _tag("int", hex(value))
    if kind is float:
        if not math.isfinite(value):
            raise Refused(f"{value!r} is not JSON; pass None or a finite number")
        return value
    container = _CONTAINERS.get(kind)
    if container is not None:
        if depth >= MAX_DEPTH:
            raise Refused(
                f"nested deeper than {MAX_DEPTH} containers or containing itself; flatten it"
            )
        return container(value, depth + 1, limit)
    scalar = _SCALARS.get(kind)
    if scalar is None:
        _refuse(value)
    return scalar(value, limit)


def _check_text(text: str, limit: int) -> None:
    if len(text) > limit:
        raise Refused(too_large(len(text), limit), len(text))
    if "\0" in text:
        raise Refused("the string holds U+0000, which PostgreSQL cannot store; pass bytes")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Refused(
                f"the string holds a lone surrogate at index {error.start}; pass bytes, "
                "or text decoded without errors='surrogateescape'"
            ) from None


def _plain_dict(value: dict[object, object], depth: int, limit: int) -> object:
    result: dict[str, object] = {}
    changed = False
    key: object = None
    try:
        for key, item in value.items():
            if type(key) is not str:
                raise Refused(f"the key is of {type(key)}, JSON keys are str; pass str(key)")
            _check_text(key, limit)
            new = plain(item, depth, limit)
            changed = changed or new is not item
            result[key] = new
    except Refused as refused:
        refused.path.append(_step(key))
        raise
    if TAG in value:
        return _tag("dict", result)
    return result if changed else value


def _plain_list(value: list[object], depth: int, limit: int) -> object:
    new = _plain_items(value, depth, limit)
    # Hand the list itself on when no item changed: the common case costs no second list later.
    return new if any(a is not b for a, b in zip(new, value, strict=True)) else value


def _plain_tuple(value: tuple[object, ...], depth: int, limit: int) -> object:
    return _tag("tuple", _plain_items(value, depth, limit))


def _plain_set(value: set[object] | frozenset[object], depth: int, limit: int) -> object:
    items: list[object] = []
    try:
        items.extend(plain(item, depth, limit) for item in value)
    except Refused as refused:
        refused.path.append("{…}")
        raise
    items.sort(key=_encoder.encode)  # one text for equal sets
    return _tag("set" if type(value) is set else "frozenset", items)


def _plain_items(value: list[object] | tuple[object, ...], depth: int, limit: int) -> list[object]:
    items: list[object] = []
    try:
        for item in value:
            items.append(plain(item, depth, limit))  # noqa: PERF401 - the length is the error's index
    except Refused as refused:
        refused.path.append(f"[{len(items)}]")
        raise
    return items


def _plain_datetime(value: datetime, limit: int) -> object:
    zone = value.tzinfo
    extra: dict[str, object] = {"fold": 1} if value.fold else {}
    if zone is None or (type(zone) is timezone and _timezone_name(zone) is None):
        return _tag("datetime", value.replace(fold=0).isoformat(), **extra)
    text = value.replace(tzinfo=None, fold=0).isoformat()
    return _tag("datetime", text, zone=_zone(zone), **extra)


def _plain_timezone(value: tzinfo, limit: int) -> object:
    return _tag("timezone", _zone(value))


def _plain_decimal(value: Decimal, limit: int) -> object:
    if not value.is_finite():
        raise Refused(f"{value!r} is not a number; pass None or a finite Decimal")
    return _tag("decimal", str(value))


def _plain_bytes(value: bytes, limit: int) -> object:
    if len(value) > limit:
        raise Refused(too_large(len(value), limit), len(value))
    return _tag("bytes", base64.b64encode(value).decode("ascii"))


def _plain_date(value: date, limit: int) -> object:
    return _tag("date", value.isoformat())


def _plain_timedelta(value: timedelta, limit: int) -> object:
    return _tag("timedelta", [value.days, value.seconds, value.microseconds])


def _zone(zone: tzinfo) -> object:
    """A ZoneInfo as its key, a timezone as [offset in µs] or [offset, name]."""
    if type(zone) is timezone:
        offset = zone.utcoffset(None) // timedelta(microseconds=1)
        name = _timezone_name(zone)
        return [offset] if name is None else [offset, name]
    if type(zone) is ZoneInfo and zone.key is not None:
        try:
            ZoneInfo(zone.key)
        except (OSError, ValueError, KeyError):  # built from a file under a name of its own
            pass
        else:
            return zone.key
    raise Refused(
        f"the time zone is {type(zone)}, which cannot be stored; "
        "pass moment.astimezone(timezone.utc) or use zoneinfo.ZoneInfo"
    )


def _timezone_name(zone: timezone) -> str | None:
    name = zone.tzname(None)
    if name == timezone(zone.utcoffset(None)).tzname(None):
        return None
    _check_text(name, len(name))
    return name


def _tag(tag: str, value: object, **extra: object) -> dict[str, object]:
    return {TAG: tag, "value": value, **extra}


def _step(key: object) -> str:
    if type(key) is str and key.isidentifier():
        return f".{key}"
    text = repr(key)
    return f"[{text if len(text) <= 80 else text[:77] + '...'}]"


def too_large(size: int, limit: int) -> str:
    """What to say of a value of `size` bytes."""
    return f"{size:,} bytes, the limit is {limit:,}; store it elsewhere and pass a reference"


def _refuse(value: object) -> NoReturn:
    kind = type(value)
    if isinstance(value, enum.Enum):
        remedy = "pass its .value"
    elif hasattr(kind, "__dataclass_fields__"):
        remedy = "pass dataclasses.asdict(…)"
    elif isinstance(value, tuple) and hasattr(kind, "_asdict"):
        remedy = "pass ._asdict() or tuple(…)"
    else:
        base = next((b for b in (*_PLAIN, *_SCALARS, *_CONTAINERS) if isinstance(value, b)), None)
        remedy = f"pass one of {_ONE_OF}"
        if base in (str, int, float, dict, list, set, frozenset, tuple):
            remedy = f"pass {base.__name__}(…)"
        elif hasattr(kind, "__fspath__"):
            remedy = "pass str(…)"
    raise Refused(f"{kind} is not JSON; {remedy}")


_PLAIN: Final = (str, int, float)
_CONTAINERS: Final[dict[type, Callable[..., object]]] = {
    dict: _plain_dict,
    list: _plain_list,
    tuple: _plain_tuple,
    set: _plain_set,
    frozenset: _plain_set,
}
_SCALARS: Final[dict[type, Callable[..., object]]] = {
    datetime: _plain_datetime,
    date: _plain_date,
    timedelta: _plain_timedelta,
    timezone: _plain_timezone,
    ZoneInfo: _plain_timezone,
    Decimal: _plain_decimal,
    bytes: _plain_bytes,
}
