"""What an event from outside carries: JSON text of anybody's, as the typed JSON that is stored."""

from __future__ import annotations

import msgspec

from roost.exceptions import ValueNotStorable, ValueTooLarge
from roost.support import typedjson

__all__ = ["MAX_BYTES", "payload_of"]

MAX_BYTES = typedjson.MAX_BYTES


def payload_of(text: bytes | str) -> str:
    """Plain JSON as typed JSON.

    Whoever sends it says plain values only: an object with the key ``$roost`` comes out as that
    object, not as what the tag would mean.

    Raises:
        ValueNotStorable: it is no JSON, too deeply nested, or more than 1 MiB.
    """
    if len(text) > MAX_BYTES:
        raise ValueTooLarge(f"payload: {len(text):,} bytes, at most {MAX_BYTES:,}", len(text))
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueNotStorable(f"payload: not JSON: {error}{_hint(text)}") from None
    except RecursionError:
        raise ValueNotStorable("payload: nested too deeply") from None
    return typedjson.encode(value, name="payload").decode()


def _hint(text: bytes | str) -> str:
    """For who gives a bare text."""
    bare = text.strip()[:1] not in ("{", "[", '"', b"{", b"[", b'"', "", b"")
    return "; a text is JSON in double quotes" if bare else ""
