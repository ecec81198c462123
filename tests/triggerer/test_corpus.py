"""Bad triggers of every kind beside 20 healthy ones, in a real triggerer (D5, D8, D9, D20).

What each does is in ``corpus``. Those of a family share one triggerer with 20 healthy triggers:
half of these fire meanwhile, the others when all the bad have had their verdict. A healthy one
that fires with the right value, under its first claim and without a strike, was not harmed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roost.support.doorbell import Doorbell
from tests.support.daemons import Daemon, Daemons
from tests.support.waiting import wait_until
from tests.triggerer.corpus import FAMILIES, Kind, code_of
from tests.triggerer.world import World

HEALTHY = 20
# Those that take a while: a runner is replaced three times or more for each of their triggers.
ENDING = [name for name in FAMILIES if {"ends", "hangs"} & set(name.split())]
# What one trigger costs that kills its runner in a step, as docs/deploy.md has it: one runner of
# the others, and six of its own.
ENDS_OF_ONE = 7


def test_corpus_is_large() -> None:
    """The measure: at least 60 kinds."""
    assert sum(map(len, FAMILIES.values())) >= 60


@pytest.mark.timeout(180)
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ENDING])
def test_bad_triggers_harm_nobody_and_are_named(
    family: str, database_url: str, roost_home: Path, daemons: Daemons, tmp_path: Path
) -> None:
    """D5: each bad trigger has its outcome, by name; 20 healthy ones beside them fire."""
    see_family(family, database_url, roost_home, daemons, tmp_path)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize("family", ENDING)
def test_who_ends_its_runner_harms_nobody_and_is_named(
    family: str, database_url: str, roost_home: Path, daemons: Daemons, tmp_path: Path
) -> None:
    """D5, D20: the same, where each takes every runner with it until it is failed."""
    see_family(family, database_url, roost_home, daemons, tmp_path)


def see_family(
    family: str, database_url: str, roost_home: Path, daemons: Daemons, tmp_path: Path
) -> None:
    """Run a family beside 20 healthy triggers, and judge what became of each."""
    kinds = FAMILIES[family]
    code = code_of(family)
    world = World(database_url, roost_home / "dags", code)
    go = tmp_path / "go"
    healthy: list[dict[str, object]] = [{"ticks": number} for number in range(HEALTHY // 2)]
    healthy += [{"ticks": number, "go": str(go)} for number in range(HEALTHY // 2, HEALTHY)]
    beside = world.defer([{"cls": "Healthy", "kwargs": kwargs} for kwargs in healthy])
    bad = dict(zip(world.defer([{"cls": name} for name in kinds]), kinds, strict=True))
    triggerer = daemons.start("triggerer", env={"ROOST__TRIGGERER__STRIKE_AFTER": "0.3"})
    try:
        if family == "cancels":
            _end(world, triggerer, list(bad), roost_home)
        else:
            wait_until(
                lambda: set(bad) <= set(world.events()),
                timeout=160,
                what=f"verdicts on {set(bad.items())}",
            )
        go.touch()
        wait_until(lambda: set(beside) <= set(world.events()), timeout=60, what="the healthy ones")

        undone = {kind.says for kind in kinds.values() if kind.outcome == "undone"}
        wait_until(  # looked at once a second
            lambda: all(says in triggerer.output for says in undone), what="what was put back"
        )
        events = world.events()
        for number, kwargs in zip(beside, healthy, strict=True):
            event = events[number]
            assert event["kind"] == "fired", event["error"]
            assert (event["value"], event["epoch"]) == (kwargs["ticks"], 1)
        struck = world.rows("SELECT id, strikes, trouble FROM trigger WHERE strikes > 0")
        assert not {row["id"]: row["trouble"] for row in struck if row["id"] in beside}
        logs = "".join(path.read_text() for path in roost_home.rglob("*.log"))
        said = logs + triggerer.output
        rows = {row["id"]: row["trouble"] for row in struck}
        troubles = {name: rows.get(number) for number, name in bad.items()}
        blamed = {name for name, kind in kinds.items() if kind.outcome == "struck"}
        assert all(kinds[name].says in (troubles[name] or "") for name in blamed), troubles
        verdicts = [
            _wrong(number, name, kinds[name], code, events.get(number), said)
            for number, name in bad.items()
        ]
        wrong = [text for text in verdicts if text]
        assert not wrong, "\n".join(wrong)
        if family == "alone ends":
            ends = re.findall(r"trigger runner \d+ killed by signal 9", triggerer.output)
            assert 0 < len(ends) <= ENDS_OF_ONE
    except (AssertionError, TimeoutError) as error:
        error.add_note(triggerer.output[-20_000:])
        raise
    assert triggerer.process.poll() is None


def _end(world: World, triggerer: Daemon, bad: list[int], home: Path) -> None:
    """Let nobody wait for the triggers any more once all of them run."""
    ours = f"id IN ({', '.join(map(str, bad))})"
    wait_until(lambda: world.count(f"job_id IS NOT NULL AND {ours}") == len(bad), what="claims")
    wait_until(lambda: triggerer.family(), what="a runner")
    wait_until(lambda: len(world.events()) >= 1, what="a healthy one to fire, so all have begun")
    world.settle(bad)
    with Doorbell(home / "run") as bell:
        bell.ring("triggerer")
    wait_until(
        lambda: all(
            re.search(rf"trigger {number} .*{re.escape(says)}", triggerer.output)
            for number, kind in zip(bad, FAMILIES["cancels"].values(), strict=True)
            if (says := kind.says)
        ),
        timeout=60,
        what="what is said of them",
    )


def _wrong(
    number: int,
    name: str,
    kind: Kind,
    code: str,
    event: dict[str, object] | None,
    said: str,
) -> str:
    """What is wrong with one verdict, or with how it is told; empty: nothing."""
    expected = {"fired": "fired", "undone": "fired", "ended": None}.get(kind.outcome, "failed")
    found = None if event is None else event["kind"]
    error = "" if event is None else str(event["error"])
    if found != expected:
        return f"{name}: {found}, not {expected}: {error}"
    if expected != "failed" or event is None:
        name_of_it = "" if kind.outcome == "undone" else f"trigger {number}"
        lines = [line for line in said.splitlines() if kind.says in line and name_of_it in line]
        told = not kind.says or (lines and _names(kind.line, code, "\n".join(lines)))
        return "" if told else f"{name}: nothing said of it: {lines[:3]}"
    if kind.says not in error:
        return f"{name}: {error}"
    if kind.outcome == "struck":
        who = f"trigger {number} ({name} of waits.t{number:07} run r)"
        # Strikes of one moment are told as one.
        if who not in error or f"{who} ended or blocked its runner, time 3 of 3" not in said:
            return f"{name}: not named: {error}"
    told = [line for line in said.splitlines() if f"trigger {number} " in line]
    if not _names(kind.line, code, "\n".join([error, *told])):
        return f"{name}: its line is not named: {error}"
    return ""


def _names(line: str, code: str, text: str) -> bool:
    """Whether one of the lines of the DAG file that hold this is named; so it is if none must."""
    meant = {at for at, one in enumerate(code.splitlines(), 1) if line in one}
    return not line or bool(meant & {int(at) for at in re.findall(r"waits\.py\D{1,10}(\d+)", text)})
