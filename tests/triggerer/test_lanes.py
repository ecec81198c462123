"""What may happen between two steps of the lanes' loop."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, MagicMock

import anyio

from roost.models.queries.triggers import Strike, present
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.death import Death
from roost.triggerer.lanes import Lanes
from roost.triggerer.ward import Ward


def lanes_of(**changed: Any) -> tuple[Lanes, AsyncMock]:
    """Lanes without a database or a runner, and what takes triggers back from the first runner."""
    wards = Ward(MagicMock(), apart=False), Ward(MagicMock(), apart=True)
    for ward in wards:
        vars(ward)["take_back"] = AsyncMock()
    arguments: dict[str, Any] = dict.fromkeys(Lanes.__init__.__annotations__, MagicMock())
    arguments |= {"database": MagicMock(), "wards": wards, "queues": (), "capacity": 10}
    arguments.pop("return")
    arguments["strike_after"] = 1.0
    return Lanes(**arguments | changed), vars(wards[0])["take_back"]


def test_a_trigger_that_ends_while_it_is_taken_back_ends_nobody() -> None:
    """invariant S15: its claim is another's, and its event comes too late."""
    lanes, _ = lanes_of()
    wards = lanes.wards
    wards[0].running.update({7: 1, 8: 1})
    answers: list[Any] = [{8: 1}, set(), set()]

    async def reading(_step: Any) -> Any:
        if len(answers) == 2:  # asked who is to be killed, while a report comes in
            lanes.ended(MagicMock(trigger_id=7, epoch=1))
        return answers.pop(0)

    lanes._db.reading = reading  # type: ignore[method-assign,assignment]
    anyio.run(lanes._reconcile)
    assert wards[0].running == {8: 1}


def test_the_third_strike_takes_a_trigger_back_whoever_is_faster() -> None:
    """D20: its failure may be stored before anything else is looked at."""
    reported: list[TriggerReport] = []

    def fail(report: TriggerReport) -> None:
        reported.append(report)
        lanes.ended(report)  # as the outbox does when it is stored

    lanes, take_back = lanes_of(on_failed=fail)
    lanes.wards[0].running.update({7: 1, 8: 1})
    spec = MagicMock(trigger_id=7, epoch=1, watcher="", map_index=-1)

    async def reading(step: Any) -> Any:
        return {7} if step.func is present else [spec]

    lanes._db.reading = reading  # type: ignore[method-assign]
    lanes._db.until_done = AsyncMock(return_value={7: 3})  # type: ignore[method-assign]
    anyio.run(lanes.court._strike, [Strike(7, 1, 1, "it blocked")])
    assert [report.trigger_id for report in reported] == [7]
    take_back.assert_awaited_once_with([7], [])
    assert lanes.wards[0].running == {8: 1}


def test_a_signal_in_a_step_proves_nothing_at_first() -> None:
    """D5: it may have come from outside; who is alone when it comes again, twice, has done it."""
    lanes, _ = lanes_of()
    healthy, apart = lanes.wards
    healthy.running.update({7: 1, 8: 1})
    death = Death(
        "killed by signal 9", 7, importing=False, suspicious=True, sure=False, outside=True
    )
    lanes.court.accuse(healthy, death)
    assert not lanes.court._accused
    assert (lanes.court.ward_of(7), lanes.court.ward_of(8)) == (apart, healthy)
    apart.running.update({7: 1})
    lanes.court.accuse(apart, death)
    assert not lanes.court._accused
    lanes.court.accuse(apart, death)
    assert [strike.trigger_id for strike in lanes.court._accused] == [7]


def test_an_exit_in_a_step_is_proof() -> None:
    """D5: only the step itself can have called it; a thread's exit is noted as the thread's."""
    lanes, _ = lanes_of()
    lanes.wards[0].running.update({7: 1, 8: 1})
    lanes.court.accuse(
        lanes.wards[0], Death("exited with code 1", 7, importing=False, suspicious=True)
    )
    assert [strike.trigger_id for strike in lanes.court._accused] == [7]
