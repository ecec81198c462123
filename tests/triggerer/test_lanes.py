"""What may happen between two steps of the lanes' loop."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, MagicMock

import anyio

from roost.triggerer.lanes import Lanes
from roost.triggerer.ward import Ward


def test_a_trigger_that_ends_while_it_is_taken_back_ends_nobody() -> None:
    """invariant S15: its claim is another's, and its event comes too late."""
    wards = Ward(MagicMock(), apart=False), Ward(MagicMock(), apart=True)
    for ward in wards:
        vars(ward)["take_back"] = AsyncMock()
    arguments: dict[str, Any] = dict.fromkeys(Lanes.__init__.__annotations__, MagicMock())
    arguments |= {"database": MagicMock(), "wards": wards, "queues": (), "capacity": 10}
    arguments.pop("return")
    arguments["strike_after"] = 1.0
    lanes = Lanes(**arguments)
    wards[0].running.update({7: 1, 8: 1})
    answers: list[Any] = [{8: 1}, set(), set()]

    async def reading(_step: Any) -> Any:
        if len(answers) == 2:  # asked who is to be killed, while a report comes in
            lanes.ended(MagicMock(trigger_id=7, epoch=1))
        return answers.pop(0)

    lanes._db.reading = reading  # type: ignore[method-assign,assignment]
    anyio.run(lanes._reconcile)
    assert wards[0].running == {8: 1}
