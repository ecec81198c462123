"""Tokens: whoever has one may send one event of one key, once, until it expires.

A token is text that fits a URL: version, expiry, nonce and key, and an HMAC-SHA256 over them with a
key derived from the encryption keyring. Every key of the ring verifies, so a token outlives a
rotation. That it is used once is the database's part: the nonce is unique there.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from typing import Final, NamedTuple

from roost.exceptions import ConfigError, RoostException
from roost.support.clock import SECOND
from roost.support.config import Config
from roost.support.crypto import Keyring
from roost.support.event_keys import check_key

__all__ = [
    "EVENTS_PATH",
    "MAX_LIFE_US",
    "MAX_TOKEN",
    "BadToken",
    "Claim",
    "ExpiredToken",
    "make_token",
    "read_token",
    "url_base",
    "url_of",
]

EVENTS_PATH: Final = "/events/"
MAX_TOKEN: Final = 1000
MAX_LIFE_US: Final = 366 * 86_400 * SECOND
_PURPOSE = "event token"
_VERSION = b"\x01"
_NONCE = 16
_MAC = 32
_HEAD = 1 + 8 + _NONCE


class BadToken(RoostException):
    """It was not made with any key of the ring, or was changed."""


class ExpiredToken(RoostException):
    """It was good once."""


class Claim(NamedTuple):
    """What a token says: who has it may send one event of ``key`` until then."""

    key: str
    expires_at: int
    nonce: str


def make_token(keys: Keyring, key: str, now: int, life_us: int) -> str:
    """A new token, good for one event of ``key`` for so long.

    Raises:
        RoostException: the key cannot be one, or is too long for a URL; the time is out of range.
        ConfigError: there is no encryption key.
    """
    if not 0 < life_us <= MAX_LIFE_US:
        raise RoostException("a token is good for more than 0 s and at most 366 days")
    expires_at = now + life_us
    body = _VERSION + expires_at.to_bytes(8, "big") + os.urandom(_NONCE) + check_key(key).encode()
    token = base64.urlsafe_b64encode(body + _mac(keys.derived(_PURPOSE)[0], body))
    if len(token) > MAX_TOKEN:
        raise RoostException(
            f"event key {key[:40]!r}… has {len(key.encode())} bytes: too many for a URL, which "
            "holds some 690"
        )
    return token.rstrip(b"=").decode()


def read_token(keys: Keyring, token: str, now: int) -> Claim:
    """What a token says, once it is sure that it is one of ours.

    Raises:
        BadToken: it is not.
        ExpiredToken: it is, but its time is over.
        ConfigError: there is no encryption key.
    """
    data = _bytes(token)
    body, mac = data[:-_MAC], data[-_MAC:]
    good = False
    for key in keys.derived(_PURPOSE):  # all of them, however early one fits
        good |= hmac.compare_digest(_mac(key, body), mac)
    if not good or len(body) <= _HEAD or body[:1] != _VERSION:
        raise BadToken("the token is not valid")
    expires_at = int.from_bytes(body[1:9], "big")
    if expires_at <= now:
        raise ExpiredToken("the token has expired")
    return Claim(body[_HEAD:].decode(), expires_at, body[9:_HEAD].hex())


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")


def _bytes(token: str) -> bytes:
    """The bytes that a text stands for, which must be the one text that stands for them."""
    if not 0 < len(token) <= MAX_TOKEN or not token.isascii():
        raise BadToken("the token is not valid")
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadToken("the token is not valid") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != token.encode():
        raise BadToken("the token is not valid")
    return data


def url_base(config: Config) -> str:
    """What URLs for tokens begin with.

    Raises:
        ConfigError: no setting says where a triggerer takes them.
    """
    if config.triggerer.callback_url_base:
        return config.triggerer.callback_url_base.rstrip("/")
    if not config.triggerer.callback_port:
        raise ConfigError(
            "no URL is known for events: set triggerer.callback_port, or "
            "triggerer.callback_url_base where a proxy or --callback-port decides it"
        )
    host = config.triggerer.callback_host
    return f"http://{f'[{host}]' if ':' in host else host}:{config.triggerer.callback_port}"


def url_of(base: str, token: str) -> str:
    """Where to POST the event."""
    return base + EVENTS_PATH + token
