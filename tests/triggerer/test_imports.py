"""Imports of triggers' code that take long, hold the GIL or never end are named (D5, D20)."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.support.doorbell import Doorbell
from roost.triggerer import registry
from roost.triggerer.places import Call, place_of_import
from tests.support.daemons import Daemon, Daemons
from tests.support.waiting import wait_until
from tests.triggerer.statsd import Statsd
from tests.triggerer.test_corpus import HEALTHY
from tests.triggerer.world import World

CORPUS = Path(__file__).parent / "corpus"
COMMON = (CORPUS / "common.py").read_text()


class Beside:
    """A real triggerer with healthy triggers, and DAG files whose import is bad.

    Args:
        world: with the classes of ``corpus/common.py``.
        home: ``$ROOST_HOME``.
        triggerer: the daemon.
    """

    def __init__(self, world: World, home: Path, triggerer: Daemon) -> None:
        self.world, self.home, self.triggerer = world, home, triggerer
        self.go = home / "go"
        self.healthy: list[int] = []
        self.line = ""

    def defer(self, specs: list[dict[str, Any]]) -> list[int]:
        """Have them run, now."""
        found = self.world.defer(specs)
        with Doorbell(self.home / "run") as bell:
            bell.ring("triggerer")
        return found

    def bad(self, kind: str) -> list[int]:
        """Defer two triggers of a file that is imported so."""
        code = f"KIND, GO = {kind!r}, {str(self.go)!r}\n{COMMON}"
        code += (CORPUS / "imports.py").read_text()
        (at,) = (n for n, line in enumerate(code.splitlines(), 1) if line.endswith(f"# {kind}"))
        self.line = rf"\S*/{kind}\.py:{at} in <module>"
        return self.defer([self.world.add_file(f"{kind}.py", code)] * 2)

    def see_healthy_fire(self, count: int = 1) -> None:
        """Others get on: what is deferred now fires now."""
        more = self.defer([{"cls": "Healthy", "kwargs": {"ticks": 1}}] * count)
        self.healthy += more
        wait_until(lambda: set(more) <= set(self.world.events()), timeout=60, what="the healthy")

    def see_named(self, pair: list[int], how: str) -> int:
        """The import is told of with one trigger, the number of others, and its line."""
        told = (
            rf"the import of the code of trigger (\d+) \(waits\.t\d+ run r\) and 1 more (?:{how}) "
        )
        told += rf"for \d.\d\d s at {self.line}"
        wait_until(lambda: re.search(told, self.triggerer.output), timeout=60, what="its name")
        found = re.search(told, self.triggerer.output)
        assert found is not None
        assert int(found[1]) in pair
        return int(found[1])

    def trouble(self, number: int) -> str:
        """What ``triggers list`` shows of a trigger."""
        rows = self.world.rows("SELECT trouble FROM trigger WHERE id = :id", id=number)
        return str(rows[0]["trouble"]) if rows else ""

    def see_slow(self, pair: list[int]) -> None:
        """Both wait for it, and ``triggers list`` tells so."""
        self.see_trouble(pair, rf"the import of its code (takes|took) \d.\d\d s, at {self.line}")

    def see_trouble(self, pair: list[int], trouble: str) -> None:
        """That is what ``triggers list`` tells of both."""
        for number in pair:
            wait_until(
                lambda: re.search(trouble, self.trouble(number)),  # noqa: B023
                timeout=60,
                what=trouble,
            )

    def see_nobody_harmed(self) -> None:
        """Every healthy trigger has fired under its first claim; nobody has a strike."""
        events = self.world.events()
        assert {(events[one]["kind"], events[one]["epoch"]) for one in self.healthy} == {
            ("fired", 1)
        }
        assert not self.world.rows("SELECT id, trouble FROM trigger WHERE strikes > 0")


@pytest.fixture
def statsd() -> Iterator[Statsd]:
    server = Statsd()
    yield server
    server.close()


@pytest.fixture
def beside(database_url: str, roost_home: Path, daemons: Daemons, statsd: Statsd) -> Beside:
    env = {
        "ROOST__STATSD__ENABLED": "true",
        "ROOST__STATSD__HOST": "127.0.0.1",
        "ROOST__STATSD__PORT": str(statsd.port),
    }
    world = World(database_url, roost_home / "dags", COMMON)
    beside = Beside(world, roost_home, daemons.start("triggerer", env=env))
    beside.see_healthy_fire(HEALTHY // 2)
    return beside


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_slow_import_is_named_while_the_others_go_on(beside: Beside, statsd: Statsd) -> None:
    """D20: one that sleeps, and one that runs; the loop turns meanwhile, and each is counted.

    One that runs and loses its processor while it has the GIL does block the others for so long.
    """
    wanted: list[set[str]] = []
    for kind, how in (
        ("sleeps", "has them wait"),
        ("spins", "has them wait|blocks every trigger of this runner"),
    ):
        pair = beside.bad(kind)
        who = beside.see_named(pair, how)
        wanted.append({f"blocked.waits.t{one:07}" for one in pair})
        beside.see_slow(pair)
        beside.see_healthy_fire(HEALTHY // 4)
        assert not set(pair) & set(beside.world.events())
        beside.go.touch()
        wait_until(lambda: set(pair) <= set(beside.world.events()), what="both")  # noqa: B023
        either = "|".join(map(str, pair))
        over = rf"the import of the code of trigger (?:{either}) \(.*\) took \d"
        wait_until(lambda: re.search(over, beside.triggerer.output), what="the end")  # noqa: B023
        assert who in pair
        beside.go.unlink()
    beside.see_nobody_harmed()
    wait_until(lambda: all(one & statsd.counts().keys() for one in wanted), what="the counts")
    assert statsd.counts().keys() - {"blocked_main_thread"} <= set().union(*wanted)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_an_import_that_sleeps_with_the_gil_is_named(beside: Beside, statsd: Statsd) -> None:
    """D20: nobody in the runner can say so; it blocks all, and is no strike: it is over."""
    pair = beside.bad("holds")
    who = beside.see_named(pair, "blocks every trigger of this runner")
    beside.see_slow(pair)
    wait_until(lambda: set(pair) <= set(beside.world.events()), timeout=60, what="both")
    beside.see_healthy_fire()
    beside.see_nobody_harmed()
    assert "was killed" not in beside.triggerer.output
    counts = statsd.counts()
    assert counts.keys() == {f"blocked.waits.t{who:07}", "blocked_main_thread"}


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_an_endless_import_that_holds_the_gil_is_named_before_the_kill(beside: Beside) -> None:
    """D5, D20: then it is a strike for those who need that code, and for no one else."""
    pair = beside.bad("matches")
    beside.see_named(pair, "blocks every trigger of this runner")
    assert "was killed" not in beside.triggerer.output
    struck = rf"was killed because it was silent for 5 s, at {beside.line}, while its code was"
    beside.see_trouble(pair, struck)
    found = beside.world.rows("SELECT id FROM trigger WHERE strikes > 0")
    assert {row["id"] for row in found} == set(pair)
    beside.see_healthy_fire()


def test_who_waits_behind_an_import_that_hangs_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D5: the minute is over for those that need it, and with the line; not for others."""
    monkeypatch.setattr(registry, "_LOAD_S", 0.3)
    found = registry.Registry(str(tmp_path))
    end = threading.Event()

    def hang(_case: object) -> str:
        end.wait()
        return "late"

    class Needs:
        trigger_id, source = 7, "waits:Late"

        def __init__(self, code_hash: str) -> None:
            self.code_hash = code_hash

    async def ask() -> list[object]:
        hung, other = Needs("a"), Needs("b")
        wanted = [
            found._import(hung, "", hang),  # type: ignore[arg-type]
            found._import(other, "", lambda case: case.code_hash),  # type: ignore[arg-type]
            found._import(hung, "", hang),  # type: ignore[arg-type]
        ]
        first = await asyncio.gather(*wanted, return_exceptions=True)
        again = found._import(hung, "", hang)  # type: ignore[arg-type]
        last = await asyncio.gather(again, return_exceptions=True)
        end.set()
        return [*first, *last]

    first, other, second, again = asyncio.run(ask())
    assert other == "b"
    for error in (first, second, again):
        assert isinstance(error, TimeoutError)
        assert re.search(rf"took over 0.3 s, at {__file__}:\d+ in hang", str(error))


def test_the_line_of_an_import_is_that_of_the_code() -> None:
    """Neither that of who executes it, nor of what it calls."""
    ours = str(Path(registry.__file__))
    loader = str(Path(registry.__file__).parents[3] / "models/roost/dag/loader.py")
    below = [Call(loader, 1, "_execute"), Call(ours, 2, "_noted"), Call("/usr/thread.py", 3, "run")]
    inner = [Call(re.__file__, 9, "match"), Call("/dags/helper.py", 5, "<module>")]
    assert place_of_import([*inner, *below]) == "/dags/helper.py:5 in <module>"
    assert place_of_import([Call(re.__file__, 9, "match"), *below]).startswith(re.__file__)
    assert place_of_import(below) == ""
