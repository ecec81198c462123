"""The verdict on watchers: what they are to see is an event once, and of one run (D13, H16)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.scripts import surfers_of

__all__ = ["tide"]


def tide(found: Evidence) -> Iterator[str]:
    """D13: nothing is lost, doubled or made up, whoever watched meanwhile; nor of a shared stream
    (D14), where each of the watchers has to see it."""
    things = {one["thing"] for one in found.witness if one["w"] == "thing"}
    waves = [one["wave"] for one in found.witness if one["w"] == "wave"]
    things |= {f"{wave}@{number}" for wave in waves for number in surfers_of(wave)}
    seen = Counter(row.thing for row in found.sightings)
    for thing in sorted(things | set(seen)):
        if thing not in things or seen[thing] != 1:
            there = "is there" if thing in things else "never was there"
            rule = "D14" if "@" in thing else "D13"
            yield f"{rule}: thing {thing} {there}, it was seen {seen[thing]} times"
    uses: dict[str, set[str]] = defaultdict(set)
    used = Counter(row.thing for row in found.sightings for _ in row.runs)
    for row in found.sightings:
        for run in row.runs:
            uses[run].add(row.thing)
        if used[row.thing] != 1:
            yield f"H16: thing {row.thing} made {used[row.thing]} runs: {row.runs}"
    for one in found.witness:
        if one["w"] == "caught" and set(one["things"]) != uses[one["run"]]:
            yield f"H16: run {one['run']} is of {sorted(uses[one['run']])}, its task saw {one}"
