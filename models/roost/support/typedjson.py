"""JSON for user values: XComs, conf, params, trigger kwargs, event payloads (S53).

Plain JSON stays plain JSON. Eleven more types travel as an object with the key ``$roost``::

    {"$roost": "date", "value": "2026-01-31"}

``datetime``, ``date``, ``timedelta``, ``timezone``, ``decimal``, ``bytes``, ``set``,
``frozenset``, ``tuple``, ``int`` (beyond 64 bits) and ``dict`` (a user's own dict that happens to
hold the key ``$roost``). The set is closed: no tag names a class, and decoding imports nothing.
A value either comes back equal and of the same type, or is refused when it is stored, with the
path of what is wrong; nothing is silently turned into something else.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from roost.exceptions import ValueNotStorable, ValueTooLarge
from roost.support._plainjson import MAX_DEPTH, TAG, Refused, plain, too_large

__all__ = ["MAX_BYTES", "MAX_DEPTH", "TAG", "decode", "encode"]

MAX_BYTES: Final = 1 << 20

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
# What hostile or truncated text makes the parsers below raise; zone names reach the file system.
_MALFORMED = (
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    KeyError,
    OSError,
    OverflowError,
    InvalidOperation,
)


def encode(value: object, *, name: str = "value", limit: int = MAX_BYTES) -> bytes:
    """A user value as typed JSON.

    Args:
        value: None, bool, int, float, str, list, dict with str keys, datetime, date, timedelta,
            timezone, ZoneInfo, Decimal, bytes, set, frozenset or tuple, nested up to
            ``MAX_DEPTH`` containers. Subclasses of these are refused: they would come back as
            something else.
        name: what the value is called in an error, e.g. ``kwargs``.
        limit: the largest result in bytes.

    Raises:
        ValueNotStorable: names the path, what is wrong there, and the remedy.
    """
    try:
        data = _encoder.encode(plain(value, 0, limit))
    except Refused as refused:
        path = name + "".join(reversed(refused.path))
        message = f"{path}: {refused.reason}"
        if refused.size:
            raise ValueTooLarge(message, refused.size) from None
        raise ValueNotStorable(message) from None
    if len(data) > limit:
        raise ValueTooLarge(f"{name}: {too_large(len(data), limit)}", len(data))
    return data


def decode(data: bytes | str | msgspec.Raw) -> object:
    """The value that :func:`encode` was given.

    Raises:
        ValueNotStorable: the text is not JSON, or holds an unknown or malformed tag.
    """
    try:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        value = _decoder.decode(raw)
        # Without the tag in the text there is nothing to restore. An escape could spell the tag
        # another way, and a database that normalises JSON would undo it, so look then as well.
        if b"$roost" not in raw and b"\\u" not in raw:
            return value
        return _restore(value)
    except _MALFORMED as error:
        raise ValueNotStorable(f"stored value is not typed JSON: {error}") from error
    except RecursionError:
        raise ValueNotStorable("stored value is not typed JSON: nested too deeply") from None


def _restore(value: object) -> object:
    if type(value) is dict:
        tag = value.get(TAG)
        if tag is None and TAG not in value:
            return {key: _restore(item) for key, item in value.items()}
        restore = _TAGS.get(tag) if type(tag) is str else None
        if restore is None:
            raise ValueError(f"unknown tag {tag!r}")
        return restore(value)
    if type(value) is list:
        return [_restore(item) for item in value]
    return value


def _value(tagged: dict[str, Any], kind: type) -> Any:
    value = tagged["value"]
    if type(value) is not kind:
        raise ValueError(f"tag {tagged[TAG]!r} needs a {kind.__name__}")
    return value


def _text(tagged: dict[str, object]) -> str:
    text: str = _value(tagged, str)
    return text


def _items(tagged: dict[str, object]) -> list[object]:
    return [_restore(item) for item in _value(tagged, list)]


def _restore_dict(tagged: dict[str, object]) -> object:
    inner: dict[str, object] = _value(tagged, dict)
    return {key: _restore(item) for key, item in inner.items()}


def _restore_datetime(tagged: dict[str, object]) -> object:
    moment = datetime.fromisoformat(_text(tagged))
    if "zone" in tagged:
        moment = moment.replace(tzinfo=_restore_zone(tagged["zone"]))
    return moment.replace(fold=1) if tagged.get("fold") == 1 else moment


def _restore_zone(zone: Any) -> tzinfo:
    if type(zone) is str:
        return ZoneInfo(zone)
    offset, *name = zone
    return timezone(timedelta(microseconds=offset), *name)


def _restore_timedelta(tagged: dict[str, object]) -> object:
    days, seconds, micros = _value(tagged, list)
    return timedelta(days=days, seconds=seconds, microseconds=micros)


def _restore_bytes(tagged: dict[str, object]) -> object:
    try:
        return base64.b64decode(_text(tagged), validate=True)
    except binascii.Error as error:
        raise ValueError(f"bytes are not base64: {error}") from None


_TAGS: Final[dict[str, Callable[[dict[str, object]], object]]] = {
    "datetime": _restore_datetime,
    "date": lambda tagged: date.fromisoformat(_text(tagged)),
    "timedelta": _restore_timedelta,
    "timezone": lambda tagged: _restore_zone(tagged["value"]),
    "decimal": lambda tagged: Decimal(_text(tagged)),
    "bytes": _restore_bytes,
    "set": lambda tagged: set(_items(tagged)),
    "frozenset": lambda tagged: frozenset(_items(tagged)),
    "tuple": lambda tagged: tuple(_items(tagged)),
    "int": lambda tagged: int(_text(tagged), 16),
    "dict": _restore_dict,
}
