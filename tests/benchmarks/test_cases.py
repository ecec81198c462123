"""Cases that are new to this folder run once in small: figures come out, whatever they are."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.cases import CASES
from benchmarks.cases.timers import Sample, lateness
from benchmarks.harness import Bench
from benchmarks.peers import FIGURES
from benchmarks.site import Server
from tests.support.rabbitmq import MISSING

_EXPECTED = {
    "timers": {name for name in FIGURES if name.startswith("timers_")},
    "events": {name for name in FIGURES if "_resumed_p" in name},
    "weights": {
        name
        for name in FIGURES
        if name.startswith("weights_") and not (MISSING and name == "weights_amqp_kb_each")
    },
    "failover": {name for name in FIGURES if name.startswith(("failover_", "timeouts_"))},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="daemons hide their memory from all but root")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("timers", "sqlite"),
        ("timers", "postgresql"),
        ("weights", "sqlite"),
        ("events", "sqlite"),
        ("failover", "postgresql"),
    ],
)
def test_a_case_in_small(server: Server, case: str, kind: str) -> None:
    """What goes wrong in a case is raised by it; statements that differ run on both databases."""
    figures: dict[str, float] = {}
    for record in CASES[case](Bench(case, kind, 1, 0.01, server)):
        figures |= record.figures
    assert _EXPECTED[case] <= figures.keys()


def test_an_event_counts_when_others_see_it() -> None:
    """Not when its transaction began: the first look that has it is what a scheduler's would be."""
    samples = [Sample(1_000_000, 2), Sample(2_000_000, 2), Sample(3_500_000, 4)]
    assert lateness(samples, [(1, 500_000), (2, 900_000), (3, 1_500_000)]) == [0.5, 0.1, 2.0]
