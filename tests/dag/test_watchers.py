"""AssetWatcher in DAG files: what is stored of it, and what is refused in one line (D13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from roost.dag import DAG, Asset, AssetOrTimeSchedule, AssetWatcher
from roost.dag.model import SerializedDag, SerializedWatcher
from roost.dag.serialize import serialize_dag
from roost.dag.watcher import identity_of
from roost.exceptions import DagError
from roost.operators import EmptyOperator
from roost.triggers import BaseEventTrigger, DateTimeTrigger, TriggerEvent


class Files(BaseEventTrigger):
    def __init__(self, path: Any = "/x") -> None:
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Files", {"path": self.path})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent()


class Broken(Files):
    def serialize(self) -> tuple[str, dict[str, Any]]:
        raise OSError("no network here")


def asset(name: str = "a", trigger: BaseEventTrigger | None = None, **more: Any) -> Asset:
    return Asset(name, watchers=[AssetWatcher("w", trigger or Files(), **more)])


def serialized(schedule: Any) -> SerializedDag:
    with DAG("d", schedule=schedule) as dag:
        EmptyOperator(task_id="t")
    stored = msgspec.json.encode(serialize_dag(dag))
    return msgspec.json.decode(stored, type=SerializedDag)


@pytest.mark.parametrize(
    "schedule",
    [asset(), [asset()], asset() & Asset("b"), AssetOrTimeSchedule("@daily", asset() | Asset("b"))],
)
def test_watchers_of_all_that_a_dag_waits_for_are_stored(schedule: Any) -> None:
    """D13: however the assets are joined."""
    (one,) = serialized(schedule).watchers
    assert (one.uri, one.name, one.classpath, one.kwargs) == ("a", "w", "Files", {"path": "/x"})
    assert one.source.endswith(":Files") and one.queue == "default"


def test_the_same_asset_twice_has_its_watcher_once() -> None:
    """D13: two of one name that differ are an error that names the asset."""
    assert len(serialized(asset() | asset()).watchers) == 1
    with pytest.raises(DagError, match="asset 'a' has two watchers of the name 'w'"):
        serialized(asset() | asset(trigger=Files("/y")))


def test_a_task_that_makes_an_asset_watches_nothing() -> None:
    """D13: watchers are for those who wait."""
    with DAG("d", schedule=None) as dag:
        EmptyOperator(task_id="t", outlets=[asset()])
    assert serialize_dag(dag).watchers == []


def test_equal_watchers_have_one_identity() -> None:
    """D13: class path, arguments and queue; the version of the file where its code is there."""
    one = SerializedWatcher("a", "w", "Files", "mine:Files", {"x": 1, "y": 2})
    same = SerializedWatcher("b", "v", "Files", "mine:Files", {"y": 2, "x": 1})
    assert identity_of(one, "h1", []) == identity_of(same, "h2", [])
    assert identity_of(one, "h1", ["mine:Files"]) != identity_of(same, "h2", ["mine:Files"])
    other = SerializedWatcher("a", "w", "Files", "mine:Files", {"x": 1, "y": 2}, queue="far")
    assert identity_of(one, "h1", []) != identity_of(other, "h1", [])


WRONG: dict[str, Any] = {
    "a class": DateTimeTrigger,
    "an event class": Files,
    "nothing": None,
    "a trigger": Files(),
    "a text": "w",
}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AssetWatcher("w", WRONG["a class"]), "not the class DateTimeTrigger"),
        (
            lambda: AssetWatcher("w", WRONG["an event class"]),
            "needs a BaseEventTrigger, not the class Files",
        ),
        (lambda: AssetWatcher("w", WRONG["nothing"]), "needs a BaseEventTrigger, not NoneType"),
        (lambda: AssetWatcher(" ", Files()), "needs a name"),
        (lambda: AssetWatcher("w\0", Files()), "needs a name"),
        (lambda: AssetWatcher("w" * 251, Files()), "at most 250 characters"),
        (lambda: AssetWatcher("w", Files(), queue=""), "needs a queue"),
        (lambda: Asset("a", watchers=[WRONG["a trigger"]]), "must hold AssetWatchers"),
        (lambda: Asset("a", watchers=WRONG["a text"]), "must be a list of AssetWatchers"),
        (lambda: Asset("a", watchers=[AssetWatcher("w", Files())] * 2), "two watchers of the name"),
        (lambda: serialized(asset(trigger=Broken())), "serialize() failed: OSError: no network"),
        (lambda: serialized(asset(trigger=Files(object()))), "arguments of watcher 'w' of asset"),
    ],
)
def test_what_is_no_watcher_is_refused_in_one_line(make: Any, said: str) -> None:
    """D13: where the DAG file is parsed."""
    with pytest.raises(DagError) as caught:
        make()
    assert said in str(caught.value) and "\n" not in str(caught.value)
