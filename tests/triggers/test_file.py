"""FileTrigger and FileDeleteTrigger on real files, with and without inotify."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roost.exceptions import DagError, RoostException
from roost.sensors import FileSensor
from roost.support import inotify
from roost.triggers import FileDeleteTrigger, FileEventTrigger, FileTrigger
from roost.triggers.folders import Folders
from roost.triggers.servers import join, leave
from tests.dag.case import a_dag, run
from tests.triggers.case import descriptors, until, waiting
from tests.triggers.watching import watching

NEVER = 3600.0


async def seen(trigger: FileTrigger, *steps: Callable[[], object]) -> Any:
    """What a trigger fires with when these things are done, one turn of the loop apart."""
    async with waiting(trigger) as (one,):
        for step in steps:
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert not one.done
            step()
        return await one.payload()


def told(trigger: FileTrigger, *steps: Callable[[], object]) -> Any:
    return asyncio.run(seen(trigger, *steps))


def test_a_file_is_seen_without_looking(tmp_path: Path) -> None:
    path = tmp_path / "a"
    trigger = FileTrigger(str(path), NEVER)
    assert told(trigger, (tmp_path / "b").touch, path.touch) == [str(path)]


def test_its_folders_may_come_later(tmp_path: Path) -> None:
    """The nearest folder that exists is watched, and the next one as soon as it is there."""
    path = tmp_path / "in" / "today" / "a"
    trigger = FileTrigger(str(path), NEVER)
    steps = ((tmp_path / "in").mkdir, path.parent.mkdir, path.touch)
    assert told(trigger, *steps) == [str(path)]


def test_folders_that_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x" / "y" / "z" / "a"
    ready = tmp_path / "ready" / "y" / "z"
    ready.mkdir(parents=True)
    (ready / "a").touch()
    trigger = FileTrigger(str(path), NEVER)
    assert told(trigger, lambda: (tmp_path / "ready").rename(tmp_path / "x")) == [str(path)]


def test_a_folder_that_is_replaced_is_watched_anew(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    trigger = FileTrigger(str(folder / "a"), NEVER)
    steps = (
        lambda: folder.rename(tmp_path / "old"),
        folder.mkdir,
        lambda: shutil.rmtree(folder),
        folder.mkdir,
        (tmp_path / "old" / "a").touch,
        (folder / "a").touch,
    )
    assert told(trigger, *steps) == [str(folder / "a")]


def test_a_folder_that_is_exchanged_at_once_is_watched_anew(tmp_path: Path) -> None:
    """Its name always means a folder, and there is nothing in it: only the kernel knows."""
    folder, other = tmp_path / "in", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    trigger = FileTrigger(str(folder / "a"), NEVER)
    assert told(trigger, lambda: other.rename(folder), (folder / "a").touch) == [str(folder / "a")]


def test_globs_see_what_comes_into_their_folder(tmp_path: Path) -> None:
    trigger = FileTrigger([str(tmp_path / "*.csv"), str(tmp_path / "done")], NEVER)
    steps = ((tmp_path / "b.csv").touch, (tmp_path / "a.csv").touch, (tmp_path / "done").touch)
    assert told(trigger, *steps) == [str(tmp_path / name) for name in ("a.csv", "b.csv", "done")]


def test_deep_globs_are_looked_for(tmp_path: Path) -> None:
    """What inotify cannot tell of is seen after poke_interval."""
    deep = tmp_path / "x" / "y"
    deep.mkdir(parents=True)
    trigger = FileTrigger(str(tmp_path / "**" / "*.csv"), 0.02)
    assert told(trigger, (deep / "a.csv").touch) == [str(deep / "a.csv")]
    assert FileTrigger(str(tmp_path / "**" / "*.csv"), recursive=False).look() is None
    shallow = FileTrigger(str(tmp_path / "x" / "**" / "*.csv"), recursive=False)
    assert shallow.look() == [str(deep / "a.csv")]


def test_small_and_unsettled_files_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a"
    trigger = FileTrigger(str(path), NEVER, min_size=3)
    steps = (lambda: path.write_text("ab"), lambda: path.write_text("abc"))
    assert told(trigger, *steps) == [str(path)]
    assert FileTrigger(str(path), settled_for=NEVER).look() is None
    os.utime(path, (1, 1))  # a copy with the times of its original is new all the same
    assert FileTrigger(str(path), settled_for=NEVER).look() is None
    path.unlink()
    settles = FileTrigger(str(path), NEVER, settled_for=0.3)
    assert told(settles, path.touch) == [str(path)]


def test_without_inotify_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise OSError(24, "too many")

    monkeypatch.setattr(inotify, "open_queue", refused)
    path = tmp_path / "a"
    assert told(FileTrigger(str(path), 0.02), path.touch) == [str(path)]


def test_a_file_is_deleted_when_its_event_is_stored(tmp_path: Path) -> None:
    """D14: and not before."""
    path = tmp_path / "a"
    path.touch()

    async def main() -> None:
        trigger = FileDeleteTrigger(str(tmp_path / "*"))
        events: Any = trigger.run()
        assert (await anext(events)).payload == [str(path)]
        assert path.exists()
        await trigger.on_stored()
        await events.aclose()
        assert not path.exists()
        assert FileDeleteTrigger("x").serialize()[0] == "roost.triggers.FileDeleteTrigger"

    asyncio.run(main())


def test_all_share_one_queue_and_leave_nothing(tmp_path: Path) -> None:
    before = descriptors()

    async def main() -> None:
        names = [str(tmp_path / str(number % 10) / "x") for number in range(100)]
        for number in range(10):
            (tmp_path / str(number)).mkdir()
        async with waiting(*[FileTrigger(name, NEVER) for name in names]) as them:
            hub = join(Folders, "")
            await until(lambda: sum(map(len, hub._watches.values())) == 10)
            sets = [one for by in hub._watches.values() for one in by.values()]
            assert sum(len(one) for one in sets if isinstance(one, set)) == 100
            (tmp_path / "3" / "x").touch()
            await until(lambda: sum(one.done for one in them) == 10)
            await until(lambda: len(hub._watches) == 9)
            await leave(hub)
        assert hub._watches == {}

    asyncio.run(main())
    assert descriptors() == before


def test_a_lost_event_costs_no_more_than_a_look(tmp_path: Path) -> None:
    """The kernel's queue is full: everybody looks."""

    async def main() -> None:
        async with waiting(FileTrigger(str(tmp_path / "a"), NEVER)) as (one,):
            hub = join(Folders, "")
            await until(lambda: hub._watches)
            kept = inotify.events

            def overflown(fd: int) -> Any:
                list(kept(fd))
                return iter([(-1, inotify.OVERFLOW, "")])

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(inotify, "events", overflown)
                await asyncio.to_thread((tmp_path / "a").touch)
                assert await one.payload() == [str(tmp_path / "a")]
            await leave(hub)

    asyncio.run(main())


def test_arguments() -> None:
    with pytest.raises(RoostException, match="FileDeleteTrigger needs a path"):
        FileDeleteTrigger([])
    with pytest.raises(RoostException, match="must not be negative"):
        FileTrigger("x", min_size=-1)
    with pytest.raises(RoostException, match="must not be negative"):
        FileTrigger("x", settled_for=-1)
    with pytest.raises(DagError, match="min_size"):
        FileSensor(task_id="f", filepath="x", min_size="1 MB")  # type: ignore[arg-type]


def test_the_sensor_passes_on_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("ab")
    for knobs in ({"min_size": 3}, {"settled_for": 600}):
        given: dict[str, Any] = knobs
        outcome, _ = run(FileSensor(task_id="f", filepath=str(path), dag=a_dag(), **given))
        assert outcome.kind == "deferred", outcome.error
        assert outcome.defer is not None
        name, value = next(iter(knobs.items()))
        assert f'"{name}":{value}'.encode() in bytes(outcome.defer.kwargs)
    settled = FileSensor(task_id="f", filepath=str(path), min_size=2, dag=a_dag())
    assert run(settled)[1] == {"return_value": [str(path)]}


def test_a_watcher_takes_each_file_once(tmp_path: Path) -> None:
    """D13: a file is deleted when its event is stored, and only then; its key tells it again."""
    pattern, first, second = str(tmp_path / "*.csv"), tmp_path / "a.csv", tmp_path / "b.csv"
    trigger = FileEventTrigger(pattern, poke_interval=0.05)

    async def main() -> None:
        first.touch()
        async with watching(trigger, stores=False) as ((one,), _):
            assert await one.has(1) == [{"paths": [str(first)]}]
            assert first.exists()
        async with watching(trigger) as ((again,), _):
            await again.has(1)
            assert again.told[0].key == one.told[0].key
            await until(lambda: not first.exists())
            second.touch()
            assert (await again.has(2))[1] == {"paths": [str(second)]}
            await until(lambda: not second.exists())

    asyncio.run(main())
