"""XComs between a task's Python values and the text that is stored (S53).

Typed JSON, at most ``core.max_xcom_size`` bytes; the worker holds the same limit, whatever a task
process sends. With ``core.xcom_pickling`` a value that typed JSON refuses is pickled, and what was
pickled is unpickled where it is read: in a task process, nowhere else, and only while the switch
is on.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import msgspec

from roost.exceptions import RoostException, ValueNotStorable, ValueTooLarge
from roost.support import typedjson, user_settings
from roost.support.elements import length_of
from roost.support.wire import XComWrite

__all__ = ["MAX_KEY", "decode", "encode"]

MAX_KEY: Final = 512
"""Most characters of a key: what its column holds."""

_PICKLED: Final = b'{"$roost":"pickle","value":"'
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def encode(task_id: str, key: object, value: Any) -> XComWrite:
    """A value as it is stored.

    Raises:
        RoostException: the key is no name.
        ValueNotStorable: the value is not typed JSON, or too large; names task, key, what is
            wrong and the remedy.
    """
    if not isinstance(key, str) or not key or len(key) > MAX_KEY or "\0" in key:
        told = f"{key[:20]!r}…" if isinstance(key, str) and len(key) > MAX_KEY else repr(key)
        raise RoostException(
            f"XCom of task {task_id!r}: the key must be a text of 1 to {MAX_KEY} characters, "
            f"not {told}"
        )
    name = f"XCom {key!r} of task {task_id!r}"
    limit = user_settings.max_xcom_size()
    try:
        data = typedjson.encode(value, name=name, limit=limit)
    except ValueTooLarge as error:
        raise _too_large(name, error.size, limit) from None
    except ValueNotStorable:
        if not user_settings.xcom_pickling():
            raise
        data = _PICKLED + _pickling().dump(name, value) + b'"}'
        if len(data) > limit:
            raise _too_large(name, len(data), limit) from None
        return XComWrite(key, msgspec.Raw(data))
    return XComWrite(key, msgspec.Raw(data), length_of(value))


def decode(raw: msgspec.Raw, *, gathered: bool = False) -> Any:
    """The value that :func:`encode` was given.

    Args:
        raw: as it was stored.
        gathered: it is a list of such values, of the instances of a mapped task.

    Raises:
        ValueNotStorable: the text is not typed JSON, or pickled while that is switched off.
    """
    data = bytes(raw)
    if b'"pickle"' not in data:
        return typedjson.decode(raw)
    if gathered:
        return [decode(one) for one in _RAW_LIST.decode(data)]
    if not data.startswith(_PICKLED):
        return typedjson.decode(raw)
    if not user_settings.xcom_pickling():
        raise ValueNotStorable(
            "the XCom was pickled and core.xcom_pickling is off; switch it on where the worker "
            "starts, or have the task push it anew"
        )
    return _pickling().load(data[len(_PICKLED) : -2])


def _pickling() -> ModuleType:
    from roost.dag import xcom_pickle  # what nobody has switched on is not even loaded

    return xcom_pickle


def _too_large(name: str, size: int, limit: int) -> ValueNotStorable:
    return ValueNotStorable(
        f"{name}: at least {size:,} bytes, core.max_xcom_size is {limit:,}; store it elsewhere and "
        "push where it is, or raise the setting"
    )
