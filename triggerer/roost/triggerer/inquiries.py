"""The supervisor's answers to what triggers ask, from the database and with the keys (H26)."""

from __future__ import annotations

import contextlib
import logging
from functools import partial

from roost.exceptions import RoostException
from roost.models.answers import ReadingAnswers
from roost.models.engine import Tx
from roost.models.queries import triggers
from roost.support.crypto import Keyring
from roost.support.frames import FrameTooLarge
from roost.support.service import Wake
from roost.support.task_requests import Reply, XComPull
from roost.triggerer.database import Database
from roost.triggerer.keeper import Keeper
from roost.triggerer.line import RunnerGone
from roost.triggerer.messages import Answer, Ask

__all__ = ["Inquiries"]

log = logging.getLogger(__name__)

_BATCH = 100
_NOBODY = triggers.Place("", "")


class Inquiries:
    """Answers requests, as many in one look at the database as have come together.

    Args:
        keys: of Variables and Connections.
    """

    def __init__(self, database: Database, keys: Keyring) -> None:
        self._db = database
        self._answers = ReadingAnswers(keys)
        self._waiting: list[tuple[Keeper, int, Ask]] = []
        self._wake = Wake()

    def put(self, keeper: Keeper, ask: Ask) -> None:
        """Take a request of the runner that ``keeper`` has now."""
        self._waiting.append((keeper, keeper.generation, ask))
        self._wake.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._wake.wait()
            while self._waiting:
                batch = self._waiting[:_BATCH]
                del self._waiting[:_BATCH]
                replies = await self._reply([ask for _, _, ask in batch])
                for (keeper, generation, ask), reply in zip(batch, replies, strict=True):
                    if keeper.generation == generation:  # else its asker died with its runner
                        with contextlib.suppress(RunnerGone):
                            await _answer(keeper, ask, reply)

    async def _reply(self, asked: list[Ask]) -> list[Reply]:
        try:
            return await self._db.reading(partial(self._step, asked))
        except Exception as error:  # such as a key that the database takes for no text
            if len(asked) > 1:
                return [reply for one in asked for reply in await self._reply([one])]
            log.warning("a request of trigger %d failed: %s", asked[0].trigger_id, error)
            return [Reply(error=str(error).partition("\n")[0])]

    def _step(self, asked: list[Ask], tx: Tx) -> list[Reply]:
        return [self._one(tx, ask) for ask in asked]

    def _one(self, tx: Tx, ask: Ask) -> Reply:
        place = _NOBODY
        if isinstance(ask.request, XComPull):  # only these depend on who asks
            found = triggers.place(tx, ask.trigger_id)
            if found is None:
                return Reply(error="its trigger has ended")
            place = found
        try:
            return self._answers.reply(tx, place, ask.request)
        except RoostException as error:
            return Reply(error=str(error))


async def _answer(keeper: Keeper, ask: Ask, reply: Reply) -> None:
    """Send a reply; what is too large to be sent is told to the trigger instead."""
    try:
        await keeper.send(Answer(ask.number, reply))
    except FrameTooLarge as error:
        refusal = Reply(error=f"{error}; pull fewer XComs at once, or smaller ones")
        await keeper.send(Answer(ask.number, refusal))
