"""S53: user values are JSON with a closed set of typed tags, exact both ways or refused."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import importlib.resources
import math
import pathlib
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.exceptions import ValueNotStorable
from roost.support import typedjson

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
zones = st.one_of(
    st.sampled_from(ZONES).map(ZoneInfo),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), texts),
    st.just(UTC),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.just("$roost"),
    st.binary(max_size=20),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=zones),
    st.timedeltas(),
    zones,
    st.decimals(allow_nan=False, allow_infinity=False),
)
keys = st.one_of(texts, st.sampled_from(["$roost", "value", "zone", "fold"]))
hashables = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.frozensets(inner, max_size=3), st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=6,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
    ),
    max_leaves=15,
)


def shape(value: Any) -> Any:
    """The value with everything that ``==`` forgives: types, fold, zone, -0.0, key order."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(shape(item)) for item in value)
    if isinstance(value, list | tuple):
        return kind, [shape(item) for item in value]
    if isinstance(value, datetime):
        return kind, value.replace(tzinfo=None), value.fold, shape(value.tzinfo)
    if isinstance(value, timezone):
        return kind, value.utcoffset(None), value.tzname(None)
    return kind, repr(value)


@given(values)
def test_every_value_comes_back_exactly(value: Any) -> None:
    data = typedjson.encode(value)
    assert shape(typedjson.decode(data)) == shape(value)
    assert typedjson.decode(data.decode()) == value
    assert typedjson.decode(msgspec.Raw(data)) == value


@given(values)
def test_the_text_is_what_any_json_reader_accepts(value: Any) -> None:
    data = typedjson.encode(value)
    assert b"\0" not in data
    msgspec.json.decode(data)


@given(
    st.recursive(
        st.none() | st.integers(0, 9) | texts, lambda i: st.lists(i) | st.dictionaries(texts, i)
    )
)
def test_plain_json_is_stored_as_plain_json(value: Any) -> None:
    assert typedjson.encode(value) == msgspec.json.encode(value)


def test_equal_sets_have_one_text() -> None:
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other), "the two must iterate differently to prove anything"
    assert typedjson.encode(one) == typedjson.encode(other)


def test_a_users_dict_that_looks_like_a_tag_stays_a_dict() -> None:
    tagged = {"$roost": "date", "value": "2026-01-31"}
    for value in (tagged, {"$roost": tagged}, {"$roost": None}, [{"$roost": {"$roost": 1}}]):
        assert typedjson.decode(typedjson.encode(value)) == value


def test_an_escape_in_the_text_does_not_hide_a_tag() -> None:
    assert typedjson.decode(b'{"\\u0024roost":"date","value":"2026-01-31"}') == date(2026, 1, 31)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Job:
    job_id: str


Point = collections.namedtuple("Point", "x y")


class Session:
    pass


@pytest.mark.parametrize(
    ("value", "path", "reason", "remedy"),
    [
        (
            {"session": Session()},
            "kwargs.session",
            "Session'> is not JSON",
            "pass one of None, bool",
        ),
        ({"a": [1, {"b c": {1, Session}}]}, "kwargs.a[1]['b c']{…}", "is not JSON", "pass one of"),
        ({"x": float("nan")}, "kwargs.x", "nan is not JSON", "pass None"),
        ((1, -math.inf), "kwargs[1]", "-inf is not JSON", "pass None"),
        (Decimal("sNaN"), "kwargs", "is not a number", "finite Decimal"),
        (["a\0b"], "kwargs[0]", "U+0000", "pass bytes"),
        ({"a\0": 1}, "kwargs['a\\x00']", "U+0000", "pass bytes"),
        (["\udc80"], "kwargs[0]", "lone surrogate at index 0", "surrogateescape"),
        ({1: 2}, "kwargs[1]", "JSON keys are str", "pass str(key)"),
        (Colour.RED, "kwargs", "Colour", "pass its .value"),
        (Level.LOW, "kwargs", "Level", "pass its .value"),
        (Job("7"), "kwargs", "Job", "pass dataclasses.asdict"),
        (Point(1, 2), "kwargs", "Point", "pass ._asdict()"),
        (collections.OrderedDict(a=1), "kwargs", "OrderedDict", "pass dict(…)"),
        (collections.defaultdict(int), "kwargs", "defaultdict", "pass dict(…)"),
        (pathlib.PurePosixPath("/a"), "kwargs", "PurePosixPath", "pass str(…)"),
        (time(12), "kwargs", "datetime.time", "pass one of"),
        ({"b": b"x" * 3000}, "kwargs.b", "3,000 bytes", "pass a reference"),
        (["x" * 600, "y" * 600], "kwargs", "1,207 bytes, the limit is 1,000", "pass a reference"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_path_and_remedy(
    value: object, path: str, reason: str, remedy: str
) -> None:
    with pytest.raises(ValueNotStorable) as caught:
        typedjson.encode(value, name="kwargs", limit=1000)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    assert reason in message
    assert remedy in message
    assert "\n" not in message


def test_a_time_zone_from_elsewhere_is_refused() -> None:
    source = importlib.resources.files("tzdata").joinpath("zoneinfo/Europe/Berlin")
    with source.open("rb") as file:
        foreign = ZoneInfo.from_file(file, key="My/Zone")
    with pytest.raises(ValueNotStorable, match=r"^value: the time zone is .*astimezone"):
        typedjson.encode(datetime(2026, 1, 1, tzinfo=foreign))


def test_depth_is_bounded_so_a_value_that_contains_itself_is_refused() -> None:
    deepest: list[Any] = []
    for _ in range(typedjson.MAX_DEPTH - 1):
        deepest = [deepest]
    assert typedjson.decode(typedjson.encode(deepest)) == deepest
    with pytest.raises(ValueNotStorable, match="nested deeper than 32"):
        typedjson.encode([deepest])
    loop: dict[str, Any] = {}
    loop["me"] = loop
    with pytest.raises(ValueNotStorable, match=r"^value(\.me){32}: nested deeper than 32"):
        typedjson.encode(loop)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b"\xff",
        b"[" * 100_000,
        b'{"$roost":"builtins.eval","value":"1"}',
        b'{"$roost":"set"}',
        b'{"$roost":"set","value":7}',
        b'{"$roost":"set","value":[[1]]}',
        b'{"$roost":["set"],"value":[]}',
        b'{"$roost":null}',
        b'{"$roost":"bytes","value":"*"}',
        b'{"$roost":"decimal","value":"one"}',
        b'{"$roost":"int","value":"0xz"}',
        b'{"$roost":"date","value":"tomorrow"}',
        b'{"$roost":"timedelta","value":[1]}',
        b'{"$roost":"timedelta","value":["1","2","3"]}',
        b'{"$roost":"timedelta","value":[99999999999999,0,0]}',
        b'{"$roost":"timezone","value":"../../../etc/passwd"}',
        b'{"$roost":"timezone","value":"Europe"}',
        b'{"$roost":"timezone","value":"No/Where"}',
        b'{"$roost":"timezone","value":7}',
        b'{"$roost":"datetime","value":"2026-01-01T00:00:00","zone":[]}',
    ],
)
def test_malformed_text_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(ValueNotStorable, match="not typed JSON"):
        typedjson.decode(data)


@given(
    st.binary(max_size=60) | texts.map(lambda t: f'{{"$roost":"datetime","value":{t}}}'.encode())
)
def test_no_text_raises_anything_else(data: bytes) -> None:
    with contextlib.suppress(ValueNotStorable):
        typedjson.decode(data)
