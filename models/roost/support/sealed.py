"""Texts that may be encrypted at rest, told apart and put together without a key (D22).

What a deferred task left (arguments of its trigger and of the method it comes back to) and the
payload of its event are encrypted by the daemon that stores them and decrypted by the one that
hands them to user code. The scheduler in between only passes them on. A Fernet token begins with a
letter, JSON of ours with a brace, a bracket, a quote, a digit or one of ``tfn-``: nothing is both.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

__all__ = ["as_raw", "is_sealed", "merged", "opened", "reopened", "text_of"]

# Version 0x80 and the high bytes of a 64-bit time stamp, in base64.
_BEGINNING = "gAAAA"
_PAIR = "sealed:"


def is_sealed(text: str) -> bool:
    """Whether a stored text is a token, or holds some."""
    return text.startswith((_BEGINNING, _PAIR))


def as_raw(text: str) -> msgspec.Raw:
    """A stored text as JSON: itself where it is JSON, a string of it where it is a token."""
    return msgspec.Raw(msgspec.json.encode(text) if is_sealed(text) else text.encode())


def text_of(raw: msgspec.Raw) -> str:
    """What :func:`as_raw` was given, of a text that is an object when it is plain."""
    text = bytes(raw).decode()
    return str(msgspec.json.decode(text)) if text.startswith('"') else text


def merged(next_kwargs: str, payload: str) -> str:
    """Arguments with ``event`` in them (D3), or both side by side where one is a token."""
    if is_sealed(next_kwargs) or is_sealed(payload):
        return _PAIR + msgspec.json.encode([next_kwargs, payload]).decode()
    fields = msgspec.json.decode(next_kwargs, type=dict[str, msgspec.Raw])
    fields["event"] = msgspec.Raw(payload.encode())
    return msgspec.json.encode(fields).decode()


def opened(text: str, unseal: Callable[[str], str]) -> str:
    """The plain JSON of what :func:`merged` gave, or of a single token."""
    if not text.startswith(_PAIR):
        return unseal(text)
    next_kwargs, payload = msgspec.json.decode(text[len(_PAIR) :], type=list[str])
    return merged(unseal(next_kwargs), unseal(payload))


def reopened(text: str, renew: Callable[[str], str]) -> str:
    """The same with every token in it replaced by what ``renew`` makes of it."""
    if not text.startswith(_PAIR):
        return renew(text)
    parts = msgspec.json.decode(text[len(_PAIR) :], type=list[str])
    return _PAIR + msgspec.json.encode([renew(part) for part in parts]).decode()
