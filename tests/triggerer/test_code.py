"""Trigger code by content hash (D23), and classes by name alone (reliability: class import)."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roost.dag import registry as names
from roost.dag.loader import MAX_HELPERS, LoadedFile, load_dag_file
from roost.dag.trigger import BaseTrigger
from roost.exceptions import DagError
from roost.triggerer.messages import Source
from roost.triggerer.registry import Registry

DAG_FILE = "from team.triggers import Waits\nfrom roost.dag import DAG\ndag = DAG('d')\n"
TRIGGER = """
from roost.dag.trigger import BaseTrigger, TriggerEvent
from team import words

class Waits(BaseTrigger):
    def serialize(self):
        return "team.triggers.Waits", {}

    async def run(self):
        yield TriggerEvent(self.says())

    def says(self):
        from . import words as near
        import team.words
        from team.words import WORD
        return [words.WORD, near.WORD, team.words.WORD, WORD]
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(folder: Path, word: str) -> None:
    (folder / "team").mkdir(exist_ok=True)
    (folder / "team" / "triggers.py").write_text(TRIGGER)
    (folder / "team" / "words.py").write_text(f"WORD = {word!r}\n")


def parsed(folder: Path) -> LoadedFile:
    return load_dag_file(str(folder / "dags.py"), DAG_FILE, str(folder))


def source_of(loaded: LoadedFile) -> Source:
    triggers = sorted(loaded.triggers)
    return Source(loaded.code_hash, "dags.py", DAG_FILE, triggers, loaded.texts)


def resolve(registry: Registry, source: str, code_hash: str = "") -> Any:
    case: Any = SimpleNamespace(trigger_id=1, source=source, code_hash=code_hash)
    return asyncio.run(registry.resolve(case))


def test_d23_versions_of_helpers_live_side_by_side(tmp_path: Path) -> None:
    """Each deferral's class has the helpers of its version, also those it imports when it runs."""
    registry = Registry(str(tmp_path))
    found, hashes = [], []
    for word in ("one", "two"):
        write(tmp_path, word)
        source = source_of(parsed(tmp_path))
        registry.add(source)
        hashes.append(source.code_hash)
        found.append(resolve(registry, "team.triggers:Waits", source.code_hash))
    assert [cls().says() for cls in found] == [["one"] * 4, ["two"] * 4]
    assert resolve(registry, "team.triggers:Waits", hashes[0]) is found[0]


def test_d23_a_helper_that_is_deleted_is_still_there_for_who_began_with_it(tmp_path: Path) -> None:
    """As after the death of a runner: the new one has nothing but what was kept."""
    write(tmp_path, "kept")
    source = source_of(parsed(tmp_path))
    for file in (tmp_path / "team").iterdir():
        if file.is_file():
            file.unlink()
    registry = Registry(str(tmp_path))
    registry.add(source)
    cls = resolve(registry, "team.triggers:Waits", source.code_hash)
    assert cls().says() == ["kept"] * 4


def test_d23_memory_is_stable_over_a_thousand_reloads(tmp_path: Path) -> None:
    """Versions that are forgotten leave no module and no class behind."""
    write(tmp_path, "word")
    made = source_of(parsed(tmp_path))
    registry = Registry(str(tmp_path))
    classes: list[weakref.ref[type]] = []
    modules: list[int] = []
    for number in range(1_000):
        helpers = dict(made.helpers)
        helpers["team.words"] = ("team/words.py", f"WORD = {number}\n")
        source = Source(f"{number:064}", "dags.py", DAG_FILE, made.triggers, helpers)
        registry.add(source)
        cls = resolve(registry, "team.triggers:Waits", source.code_hash)
        assert cls().says() == [number] * 4
        classes.append(weakref.ref(cls))
        registry.forget([source.code_hash])
        modules.append(len(sys.modules))
    del cls
    gc.collect()
    assert max(modules) - modules[0] <= 1
    assert sum(ref() is not None for ref in classes) <= 1


def test_helpers_that_are_too_large_are_read_from_the_disk(tmp_path: Path) -> None:
    """Their texts are not kept; a file that imports them parses all the same."""
    write(tmp_path, "large")
    with (tmp_path / "team" / "words.py").open("a") as file:
        file.write("#" * MAX_HELPERS)
    loaded = parsed(tmp_path)
    assert loaded.texts == {}
    assert "team/words.py" in loaded.helpers
    registry = Registry(str(tmp_path))
    registry.add(source_of(loaded))
    assert resolve(registry, "team.triggers:Waits", loaded.code_hash)().says() == ["large"] * 4


def test_d23_an_upgraded_package_is_used_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an entry point: old instances keep their class, the same time stamp or not."""
    place = tmp_path / "site-packages"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(names, "_entry_points", frozenset({"offered_waits:Waits"}))
    text = TRIGGER.replace("from team import words\n", "").split("    def says")[0] + "    N = 0\n"
    file = place / "offered_waits.py"
    registry = Registry(str(tmp_path))
    found = []
    for number in (1, 2, 2):
        file.write_text(text.replace("N = 0", f"N = {number}"))
        importlib.invalidate_caches()
        found.append(resolve(registry, "offered_waits:Waits"))
    file.write_text("raise ValueError('half written')\n")
    with pytest.raises(ValueError, match="half written"):
        resolve(registry, "offered_waits:Waits")
    file.write_text(text.replace("N = 0", "N = 3"))
    found.append(resolve(registry, "offered_waits:Waits"))
    assert [cls.N for cls in found] == [1, 2, 2, 3]
    assert found[1] is found[2]
    assert issubclass(found[0], BaseTrigger)


def test_no_importable_name_is_imported_unless_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every module of the standard library, and names that are none, are refused by name alone."""
    registry = Registry(str(tmp_path))
    monkeypatch.setattr(names, "_entry_points", frozenset())
    write(tmp_path, "listed")
    source = source_of(parsed(tmp_path))
    registry.add(source)
    imported: list[str] = []
    watching = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "import":
            imported.append(args[0])

    sys.addaudithook(hook)
    odd = [
        "", ":", "os", "os:", ":system", "os.system", "os:system\n", "os:system ", "os :system",
        "team.triggers:Waits\0", "team.triggers:Waits;os", "team..triggers:Waits",
        "../team/triggers:Waits", "team/triggers:Waits", "roost.triggers:_x y",
        "roost.triggersevil:X", "team.triggers:Waits.__init__", "builtins:eval", "-c:x",
    ]  # fmt: skip
    bad = [f"{name}:{attr}" for name in sys.stdlib_module_names for attr in ("system", "Popen")]
    for name in bad + odd:
        with pytest.raises(DagError, match="is not registered"):
            resolve(registry, name, source.code_hash)
    watching = False
    assert not {name.partition(".")[0] for name in imported} & {"team", "antigravity", "this"}
    assert "antigravity" not in sys.modules
