"""Secrets that must not be seen: what this process has been given, hidden in all it shows.

A process registers a secret when it gets it (:func:`mask_secret`); from then on :func:`mask` puts
``***`` in its place in texts, and :class:`Filter` in a stream of bytes. Until then both cost one
look at a variable. A secret is found as it is and in the forms that it takes on the way: inside
JSON or a ``repr``, percent-encoded in a URL, in base64, and each line of several by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

__all__ = [
    "MASK",
    "MIN_CHARS",
    "Filter",
    "forget",
    "is_active",
    "is_sensitive",
    "mask",
    "mask_also",
    "mask_secret",
    "mask_value",
    "register",
    "secrets_in",
    "use_names",
]

MASK: Final = "***"
MIN_CHARS: Final = 5
"""Shorter values are not hidden: they would be found everywhere, and tell where they stood."""

_NAMES = (
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "credential",
    "keyfile_dict",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "secret",
    "service_account",
    "token",
)
_VARIABLE = "ROOST__SECURITY__SENSITIVE_NAMES"
_MOST_DEPTH = 16


class _Forms:
    """The forms of all secrets so far, and the patterns that find them."""

    def __init__(self) -> None:
        self.texts: set[str] = set()
        self.pattern: re.Pattern[str] | None = None
        self.bytes: list[bytes] = []
        self.byte_pattern: re.Pattern[bytes] | None = None

    def add(self, forms: set[str]) -> None:
        if forms <= self.texts:
            return
        # Made anew, not changed: other threads may be reading.
        texts = self.texts | forms
        longest_first = sorted(texts, key=lambda text: (-len(text), text))
        self.pattern = re.compile("|".join(map(re.escape, longest_first)))
        encoded = [text.encode("utf-8", "backslashreplace") for text in longest_first]
        self.byte_pattern = re.compile(b"|".join(map(re.escape, encoded)))
        self.bytes = encoded
        self.texts = texts


_forms = _Forms()
_more_names: list[str] | None = None  # None: the environment has them


def mask_secret(value: object, name: str | None = None) -> None:
    """Hide ``value`` from now on in all that this process logs, renders and reports.

    Args:
        value: a text; or a dict or list, of which every text is hidden.
        name: what the value is called; given, a value is hidden only if the name is sensitive,
            and so are values of a dict by their own names.
    """
    for text in secrets_in(value, name):
        register(text)


def secrets_in(value: object, name: str | None = None) -> Iterator[str]:
    """The texts that :func:`mask_secret` would hide."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(item, None if name is None or is_sensitive(name) else str(key))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from secrets_in(item, name)
    elif isinstance(value, (str, bytes)) and (name is None or is_sensitive(name)):
        yield value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def register(secret: str) -> None:
    """Hide a text and its forms."""
    found = _all_forms(secret)
    if found:
        _forms.add(found)


def mask_also(text: str, secrets: Iterable[str]) -> str:
    """:func:`mask`, and ``***`` for these secrets and their forms, which are not remembered.

    For a process that meets a great many, each of which shows in few texts.
    """
    text = mask(text)
    forms = {form for secret in secrets for form in _all_forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _all_forms(secret: str) -> set[str]:
    lines = [secret, secret.strip(), *map(str.strip, secret.splitlines())]
    found: set[str] = set()
    for text in dict.fromkeys(lines):
        if len(text) >= MIN_CHARS and text.strip("*"):
            found |= _forms_of(text)
    return found


def _forms_of(text: str) -> set[str]:
    import base64  # only a process that holds a secret pays for these
    import json
    from urllib.parse import quote, quote_plus

    raw = text.encode("utf-8", "surrogatepass")
    forms = {
        text,
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        repr(text)[1:-1],
        repr(raw)[2:-1],
        quote(raw),
        quote(raw, safe=""),
        quote_plus(raw),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }
    forms |= {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in forms}
    return {form for form in forms if len(form) >= MIN_CHARS}


def use_names(names: Iterable[str]) -> None:
    """Take ``security.sensitive_names`` where they do not come with the environment."""
    global _more_names
    _more_names = [name.lower() for name in names]


def is_active() -> bool:
    """Whether this process knows any secret."""
    return _forms.pattern is not None


def forget() -> None:
    """Forget all secrets and names: for tests."""
    global _forms, _more_names
    _forms, _more_names = _Forms(), None


def is_sensitive(name: str) -> bool:
    """Whether something of this name is a secret: the name holds one of the known words."""
    low = name.lower().replace("-", "_")
    extra = _more_names
    if extra is None:
        extra = [word.strip().lower() for word in os.environ.get(_VARIABLE, "").split(",")]
    return any(word in low for word in (*_NAMES, *extra) if word)


def mask(text: str) -> str:
    """``text`` with ``***`` for every secret that this process knows."""
    pattern = _forms.pattern
    return text if pattern is None else pattern.sub(MASK, text)


def mask_value(value: Any, name: str = "", *, depth: int = 0) -> Any:
    """A value for showing: secrets in its texts hidden, and all of what has a sensitive name.

    Args:
        value: anything; dicts, lists and tuples are looked into, other objects are kept.
        name: what it is called.
        depth: how deep it lies in what is shown.
    """
    if name and is_sensitive(name) and value is not None and not isinstance(value, bool):
        return MASK if value != "" else value
    if depth > _MOST_DEPTH:
        return MASK
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, bytes):
        found = _forms.byte_pattern
        return value if found is None else found.sub(MASK.encode(), value)
    if isinstance(value, Mapping):
        return {
            mask(key) if isinstance(key, str) else key: mask_value(
                item, key if isinstance(key, str) else "", depth=depth + 1
            )
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [mask_value(item, depth=depth + 1) for item in value]
        return tuple(items) if type(value) is tuple else items
    if isinstance(value, (set, frozenset)):
        return {mask_value(item, depth=depth + 1) for item in value}
    return value


class Filter:
    """Hides secrets in a stream of bytes that comes in pieces.

    The end of a piece that may be the beginning of a secret is held back until the next piece
    decides it, or until :meth:`rest`.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown after ``data``."""
        pattern = _forms.byte_pattern
        if pattern is None:
            return self.rest() + data
        data = self._held + data
        cut = len(data) - _open_end(data, _forms.bytes)
        for match in pattern.finditer(data):
            if match.end() > cut:
                cut = min(cut, match.start())
                break
        self._held = data[cut:]
        return pattern.sub(MASK.encode(), data[:cut])

    def rest(self) -> bytes:
        """What was held back: nothing comes after it."""
        held, self._held = self._held, b""
        pattern = _forms.byte_pattern
        return held if pattern is None else pattern.sub(MASK.encode(), held)


def _open_end(data: bytes, forms: list[bytes]) -> int:
    """Length of the longest end of ``data`` that is the beginning, not all, of some form."""
    if not data:
        return 0
    last = data[-1:]
    longest = 0
    for form in forms:
        at = form.rfind(last, 0, min(len(form) - 1, len(data)))
        while at >= longest:
            if data.endswith(form[: at + 1]):
                longest = at + 1
                break
            at = form.rfind(last, 0, at)
    return longest
