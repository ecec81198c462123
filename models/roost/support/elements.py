"""Lengths and elements of values that tasks are mapped over, without decoding all of them (H17).

A list or tuple has its items, a dict ``(key, value)`` tuples in the order it was written in.
"""

from __future__ import annotations

from typing import Final

import msgspec

from roost.exceptions import RoostException
from roost.support._plainjson import TAG

__all__ = ["element_of", "elements_of", "length_of", "list_of"]

_NULL: Final = msgspec.Raw(b"null")
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_RAW_DICT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def length_of(value: object) -> int | None:
    """How many instances a task mapped over ``value`` has; None: it cannot be mapped over."""
    return len(value) if isinstance(value, list | tuple | dict) else None


def element_of(data: msgspec.Raw | bytes | str, position: int) -> msgspec.Raw:
    """One element of a stored value.

    Args:
        data: typed JSON of a list, tuple or dict.
        position: from 0 up.

    Returns:
        Typed JSON; ``null`` beyond the end.

    Raises:
        RoostException: the value is of another type.
    """
    found = elements_of(data)
    return found[position] if position < len(found) else _NULL


def elements_of(data: msgspec.Raw | bytes | str) -> list[msgspec.Raw]:
    """All elements of a stored value, each as typed JSON; a dict has ``(key, value)`` tuples.

    Raises:
        RoostException: the value is no list, tuple or dict.
    """
    raw = data.encode() if isinstance(data, str) else bytes(data)
    try:
        found = _items(raw)
    except msgspec.DecodeError:
        raise RoostException("the value is no list, tuple or dict to map over") from None
    return found if isinstance(found, list) else [_pair(*item) for item in found.items()]


def _pair(key: str, value: msgspec.Raw) -> msgspec.Raw:
    return msgspec.Raw(
        b'{"%s":"tuple","value":[%s,%s]}' % (TAG.encode(), msgspec.json.encode(key), bytes(value))
    )


def list_of(values: list[msgspec.Raw]) -> msgspec.Raw:
    """The values as one list."""
    return msgspec.Raw(b"[" + b",".join(bytes(value) for value in values) + b"]")


def _items(raw: bytes) -> list[msgspec.Raw] | dict[str, msgspec.Raw]:
    if raw.lstrip()[:1] != b"{":
        return _RAW_LIST.decode(raw)
    fields = _RAW_DICT.decode(raw)
    tag = fields.get(TAG)
    if tag is None:
        return fields
    kind = bytes(tag)
    if kind == b'"tuple"':
        return _RAW_LIST.decode(fields["value"])
    if kind == b'"dict"':
        return _RAW_DICT.decode(fields["value"])
    raise RoostException("the value is no list, tuple or dict to map over")
