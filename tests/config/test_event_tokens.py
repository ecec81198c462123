"""Tokens that send one event: nobody makes or changes one without a key of the ring."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.exceptions import ConfigError, RoostException
from roost.support.clock import SECOND
from roost.support.config import Config
from roost.support.crypto import Keyring, new_key
from roost.support.event_tokens import (
    MAX_LIFE_US,
    MAX_TOKEN,
    BadToken,
    Claim,
    ExpiredToken,
    make_token,
    read_token,
    url_base,
)
from roost.support.settings import Triggerer

NOW = 1_800_000_000 * SECOND
HOUR = 3600 * SECOND
OLD, NEW = new_key(), new_key()
KEYS = Keyring(OLD)
TOKEN = make_token(KEYS, "orders/2026-01-31", NOW, HOUR)


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=170))
def test_token_says_what_it_was_made_for(key: str) -> None:
    key = f"k{key}"
    token = make_token(KEYS, key, NOW, HOUR)
    claim = read_token(KEYS, token, NOW + HOUR - 1)
    assert claim == Claim(key, NOW + HOUR, claim.nonce)
    assert len(claim.nonce) == 32
    assert len(token) <= MAX_TOKEN
    assert token == base64.urlsafe_b64encode(base64.urlsafe_b64decode(token + "==")).decode().strip(
        "="
    )


def test_no_two_tokens_are_alike() -> None:
    nonces = {read_token(KEYS, make_token(KEYS, "a", NOW, HOUR), NOW).nonce for _ in range(100)}
    assert len(nonces) == 100


def test_expired() -> None:
    with pytest.raises(ExpiredToken):
        read_token(KEYS, TOKEN, NOW + HOUR)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("ABCabc019-_=.+/ \n\x00é"))
def test_a_changed_character_is_refused(place: int, other: str) -> None:
    """Any: even one that changes no byte, for the last character has spare bits."""
    changed = TOKEN[:place] + other + TOKEN[place + 1 :]
    if changed != TOKEN:
        with pytest.raises(BadToken):
            read_token(KEYS, changed, NOW)


@given(st.one_of(st.text(max_size=50), st.binary(max_size=1200).map(lambda b: b.hex())))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(BadToken):
        read_token(KEYS, text, NOW)


def test_other_spellings_are_refused() -> None:
    for text in (TOKEN + "=", TOKEN + "A", TOKEN[:-1], TOKEN * 2, "", "A" * 5000):
        with pytest.raises(BadToken):
            read_token(KEYS, text, NOW)


def test_every_key_of_the_ring_verifies_and_no_other() -> None:
    """A token outlives the rotation of the key it was made with, until that key is removed."""
    rotated = Keyring(f"{NEW},{OLD}")
    for ring in (rotated, Keyring(f"{OLD},{NEW}"), Keyring(f"{NEW},{OLD},{new_key()}")):
        assert read_token(ring, TOKEN, NOW).key == "orders/2026-01-31"
    assert read_token(Keyring(NEW), make_token(rotated, "a", NOW, HOUR), NOW).key == "a"
    with pytest.raises(BadToken):
        read_token(Keyring(NEW), TOKEN, NOW)
    with pytest.raises(ConfigError):
        read_token(Keyring(), TOKEN, NOW)


def test_its_key_is_not_the_one_that_encrypts() -> None:
    """And another one for each purpose."""
    (one,), (other,) = KEYS.derived("event token"), KEYS.derived("something else")
    assert len(one) == 32
    assert one not in (other, base64.urlsafe_b64decode(OLD))


@pytest.mark.parametrize("life", [0, -1, MAX_LIFE_US + 1])
def test_life_has_limits(life: int) -> None:
    with pytest.raises(RoostException, match="at most 366 days"):
        make_token(KEYS, "a", NOW, life)


def test_key_must_fit_a_url() -> None:
    with pytest.raises(RoostException, match="too many for a URL"):
        make_token(KEYS, "😀" * 200, NOW, HOUR)
    with pytest.raises(RoostException, match="Roost's own"):
        make_token(KEYS, "roost:run/d", NOW, HOUR)


def test_base_of_urls() -> None:
    def base(**settings: Any) -> str:
        return url_base(cast("Config", SimpleNamespace(triggerer=Triggerer(**settings))))

    assert base(callback_port=80) == "http://127.0.0.1:80"
    assert base(callback_port=80, callback_host="::1") == "http://[::1]:80"
    assert base(callback_url_base="https://x/y/") == "https://x/y"
    with pytest.raises(ConfigError, match="callback_url_base"):
        base()
