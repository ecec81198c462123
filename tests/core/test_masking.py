"""No secret that a process has been given survives in what it shows (reliability S19)."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.support import masking
from roost.support.masking import MASK, MIN_CHARS, Filter, mask, mask_secret, mask_value

# A secret of stars alone would be its own mask.
SECRETS = st.lists(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="*"),
        min_size=MIN_CHARS,
        max_size=20,
    ).filter(lambda text: len(text.strip()) >= MIN_CHARS),
    min_size=1,
    max_size=4,
)
NOISE = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def forms(secret: str) -> list[str]:
    raw = secret.encode()
    return [
        secret,
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        base64.b64encode(raw).decode().rstrip("="),
    ]


@given(SECRETS, st.data())
def test_no_form_of_a_secret_survives_in_a_text(secrets: list[str], data: st.DataObject) -> None:
    masking.forget()
    for secret in secrets:
        mask_secret(secret)
    written = [data.draw(st.sampled_from(forms(secret))) for secret in secrets]
    shown = mask("".join(data.draw(NOISE) + form for form in written) + data.draw(NOISE))
    for form in (*secrets, *written):
        assert form not in shown


@pytest.mark.parametrize("kind", range(7))
def test_each_form_of_a_secret_is_hidden(kind: int) -> None:
    value = "p/w? \"d'\\é~"
    mask_secret(value)
    assert MASK in mask(f"<{forms(value)[kind]}>")
    assert mask(quote(value, safe="").lower()) == MASK


@given(SECRETS, st.data())
def test_no_secret_survives_in_a_stream_however_it_is_cut(
    secrets: list[str], data: st.DataObject
) -> None:
    masking.forget()
    for secret in secrets:
        mask_secret(secret)
    whole = "".join(data.draw(NOISE) + secret for secret in secrets) + data.draw(NOISE)
    stream = whole.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    filter_ = Filter()
    shown = b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        shown += filter_.feed(stream[start:end])
    shown += filter_.rest()
    for secret in secrets:
        assert secret.encode() not in shown
    if not any(secret in whole.replace(secret, "", 1) for secret in secrets):
        assert MASK.encode() in shown


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_a_stream_without_secrets_is_not_changed(pieces: list[bytes]) -> None:
    masking.forget()
    for known in (False, True):
        if known:
            mask_secret("a secret that is not there")
        filter_ = Filter()
        shown = b"".join(filter_.feed(piece) for piece in pieces) + filter_.rest()
        assert shown == b"".join(pieces)


def test_what_may_become_a_secret_is_held_back_and_no_more() -> None:
    mask_secret("abcdef")
    filter_ = Filter()
    assert filter_.feed(b"x abc") == b"x "
    assert filter_.feed(b"dex") == b"abcdex"
    assert filter_.feed(b"line\n") == b"line\n"
    assert filter_.feed(b"abcd") == b""
    assert filter_.feed(b"ef") == b"***"
    assert filter_.feed(b"abc") == b""
    assert filter_.rest() == b"abc"


def test_a_secret_that_begins_another_waits_for_the_longer_one() -> None:
    mask_secret(["abcde", "abcdefgh"])
    filter_ = Filter()
    assert filter_.feed(b"abcde") == b""
    assert filter_.feed(b"fgh.") == b"***."


def test_every_line_of_a_secret_is_one() -> None:
    mask_secret("first line\nshrt\nlast line\n")
    assert mask("a first line b") == "a *** b"
    assert mask("last line") == MASK
    assert mask("shrt") == "shrt"


@pytest.mark.parametrize("value", ["", "abcd", "****", "*****", None, 12345, True])
def test_what_is_short_or_no_text_is_not_hidden(value: object) -> None:
    mask_secret(value)
    assert not masking.is_active()
    assert mask(f"it is {value}!") == f"it is {value}!"


def test_everything_in_a_value_without_a_name_is_hidden() -> None:
    mask_secret({"a": ["canary-1", ("canary-2", {"b": b"canary-3"})]})
    assert mask("canary-1 canary-2 canary-3") == "*** *** ***"


def test_by_name_only_what_is_sensitive_is_hidden() -> None:
    mask_secret({"user": "visible", "Db-Password": "canary", "api_key": {"x": "canary2"}}, "")
    assert mask("visible canary canary2") == "visible *** ***"


@pytest.mark.parametrize(
    ("name", "sensitive"),
    [
        ("password", True),
        ("DB_PASSWORD", True),
        ("my-api-key", True),
        ("aws_secret_access_key", True),
        ("Authorization", True),
        ("service_token", True),
        ("user", False),
        ("pin", False),
        ("", False),
    ],
)
def test_sensitive_names(name: str, sensitive: bool) -> None:
    assert masking.is_sensitive(name) is sensitive


def test_more_sensitive_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST__SECURITY__SENSITIVE_NAMES", "pin, Zip,")
    assert masking.is_sensitive("my_pin")
    assert masking.is_sensitive("ZIP")
    assert not masking.is_sensitive("user")


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.just("a canary-9 b"))


@given(
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.sampled_from(["user", "password", "canary-9"]), inner, max_size=3),
        ),
        max_leaves=12,
    )
)
def test_no_secret_survives_in_a_nested_value(value: Any) -> None:
    """CVE-2026-54183: masking must reach into lists in lists."""
    masking.forget()
    mask_secret("canary-9")
    assert "canary-9" not in repr(mask_value({"fields": value}))


def test_a_value_keeps_its_shape() -> None:
    value = {"a": [1, ("x", {"password": "abc", "on": True}), None], "token": ["t"]}
    assert mask_value(value) == {
        "a": [1, ("x", {"password": MASK, "on": True}), None],
        "token": MASK,
    }
    assert mask_value("v", "password") == MASK
    assert mask_value(5, "secret_number") == MASK
    assert mask_value("", "password") == ""
