"""Texts that may be encrypted at rest, passed on without a key and opened with one (D22, D3)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.exceptions import DecryptionError
from roost.support import typedjson
from roost.support.crypto import Keyring, new_key
from roost.support.sealed import as_raw, is_sealed, merged, opened, reopened, text_of

KEYS, OTHER = Keyring(new_key()), Keyring(new_key())
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_KWARGS = st.dictionaries(_TEXT, _VALUES, max_size=3)


def encode(value: object) -> str:
    return typedjson.encode(value).decode()


def unseal(text: str) -> str:
    return KEYS.unseal(text, "it")


@given(_VALUES)
def test_no_json_is_taken_for_a_token(value: object) -> None:
    assert not is_sealed(encode(value))
    assert unseal(encode(value)) == encode(value)


@given(_KWARGS, st.booleans())
def test_arguments_go_through_an_outcome_as_they_are(kwargs: object, encrypted: bool) -> None:
    """As the worker writes them and the scheduler takes them out."""
    text = KEYS.seal(encode(kwargs)) if encrypted else encode(kwargs)
    on_the_way = msgspec.json.decode(msgspec.json.encode(as_raw(text)), type=msgspec.Raw)
    assert text_of(on_the_way) == text


@given(_KWARGS, _VALUES, st.booleans(), st.booleans())
def test_d3_the_event_is_among_the_arguments_whatever_of_both_is_encrypted(
    kwargs: dict[str, object], event: object, first: bool, second: bool
) -> None:
    next_kwargs, payload = encode(kwargs), encode(event)
    stored = merged(
        KEYS.seal(next_kwargs) if first else next_kwargs, KEYS.seal(payload) if second else payload
    )
    assert typedjson.decode(opened(stored, unseal)) == {**kwargs, "event": event}
    renewed = reopened(stored, lambda text: OTHER.seal(unseal(text)) if is_sealed(text) else text)
    assert typedjson.decode(opened(renewed, lambda text: OTHER.unseal(text, "it"))) == {
        **kwargs, "event": event,
    }  # fmt: skip


def test_an_event_of_a_mebibyte_is_opened_as_it_was() -> None:
    event = "\x7fé" * ((1 << 20) // 3 - 1)  # 1 MiB is the limit
    stored = merged(KEYS.seal('{"a": 1}'), KEYS.seal(encode(event)))
    assert typedjson.decode(opened(stored, unseal)) == {"a": 1, "event": event}


@pytest.mark.parametrize("text", ["{}", "null"])
def test_what_says_nothing_is_not_encrypted(text: str) -> None:
    assert KEYS.seal(text) == text


def test_of_a_wrong_key_is_said_whose_it_was() -> None:
    stored = merged(KEYS.seal('{"a": 1}'), "null")
    with pytest.raises(DecryptionError, match=r"^it cannot be decrypted"):
        opened(stored, lambda text: OTHER.unseal(text, "it"))
