"""H17: one element of a stored value is what the whole value has at that place."""

from __future__ import annotations

from typing import Any

import pytest

from roost.exceptions import RoostException
from roost.support import typedjson
from roost.support.elements import element_of, length_of, list_of
from tests.dag.case import raw

VALUES: list[Any] = [
    [1, "x", {"a": [2]}, None],
    (1, (2, 3), {"$roost": 4}),
    {"a": 1, "b": [2], 'q"u': {"c": (3,)}},
    {"$roost": 1, "x": (2, 3)},
    [],
    {},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_h17_elements_are_those_of_the_whole_value(value: Any) -> None:
    stored = typedjson.encode(value)
    wanted = list(value.items()) if isinstance(value, dict) else list(value)
    found = [typedjson.decode(element_of(stored, i)) for i in range(len(wanted))]
    assert found == wanted
    assert length_of(value) == len(wanted)
    assert typedjson.decode(element_of(stored, len(wanted))) is None
    assert typedjson.decode(list_of([element_of(stored, i) for i in range(len(wanted))])) == wanted


@pytest.mark.parametrize("value", ["text", 5, None, {1, 2}])
def test_h17_other_values_have_no_elements(value: Any) -> None:
    assert length_of(value) is None
    with pytest.raises(RoostException, match="no list, tuple or dict"):
        element_of(raw(value), 0)
