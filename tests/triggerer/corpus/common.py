"""What the DAG file of every family begins with: the healthy triggers, and a short base."""

# These files stand in for users' files, which nobody lints or annotates.
# mypy: ignore-errors

import asyncio, contextlib, os, stat, sys, threading, time
from pathlib import Path

from roost.dag.trigger import BaseTrigger, TaskSuccessEvent, TriggerEvent


class Named(BaseTrigger):
    def serialize(self):
        return (type(self).__name__, {})


class Healthy(BaseTrigger):
    """Ticks, and waits for a file if it was given one; fires with what it was given."""

    def __init__(self, ticks, go=None):
        self.ticks, self.go = ticks, go

    def serialize(self):
        return ("Healthy", {"ticks": self.ticks, "go": self.go})

    async def run(self):
        for _ in range(self.ticks):
            await asyncio.sleep(0.05)
        while self.go is not None and not os.path.exists(self.go):
            await asyncio.sleep(0.05)
        yield TriggerEvent(self.ticks)
