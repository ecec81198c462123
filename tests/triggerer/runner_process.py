"""A runner child driven by a test in place of a supervisor."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from roost.dag.loader import load_dag_file, module_name
from roost.support import typedjson
from roost.support.frames import FrameBuffer, write_frame
from roost.support.trigger_wire import TriggerReport, TriggerSpec
from roost.triggerer.messages import (
    SHARED_BYTES,
    SLOT_BYTES,
    Blocked,
    FromRunner,
    Kept,
    Kill,
    Killed,
    Reports,
    Seen,
    Setup,
    Sighting,
    Source,
    Start,
    Together,
    ToRunner,
    Words,
    decode_from_runner,
)

__all__ = ["RunnerProcess"]


class RunnerProcess:
    """Starts ``python -m roost.triggerer.runner`` and speaks its protocol.

    Args:
        folder: the DAGs folder; also where the runner's output goes.
        code: text of the DAG file that defines the trigger classes.
    """

    def __init__(self, folder: Path, code: str) -> None:
        path = folder / "waits.py"
        path.write_text(code)
        self._module = module_name(str(path), str(folder))
        found = load_dag_file(str(path), code, str(folder)).triggers
        self.source = Source("a" * 64, "waits.py", code, sorted(found))
        self._sent_source = False
        self.messages: list[FromRunner] = []
        self.log = folder / "runner.out"
        self._line, theirs = socket.socketpair()
        self._notes, their_notes = os.pipe()
        slot = os.memfd_create("slot")
        os.ftruncate(slot, SHARED_BYTES)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "roost.triggerer.runner",
                    str(theirs.fileno()), str(their_notes), str(slot),
                ],
                pass_fds=(theirs.fileno(), their_notes, slot),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        theirs.close()
        os.close(their_notes)
        self._slot = slot
        self._frames = {self._line.fileno(): FrameBuffer(), self._notes: FrameBuffer()}
        self.send(Setup(str(folder)))

    def send(self, message: ToRunner) -> None:
        """Hand the runner a message."""
        write_frame(self._line, message)

    def start(self, trigger_id: int, cls: str, *, epoch: int = 1, **kwargs: Any) -> None:
        """Have the runner run one trigger of a class of the DAG file, or ``module:Class``."""
        self.send(Start([self.spec(trigger_id, cls, epoch, kwargs)], self._sources()))

    def watch(self, trigger_id: int, cls: str, *, epoch: int = 1, **kwargs: Any) -> None:
        """Have the runner run the trigger of a watcher."""
        spec = self.spec(trigger_id, cls, epoch, kwargs)
        spec.dag_id = spec.run_id = spec.task_id = ""
        spec.watcher = f"w{trigger_id} of asset a"
        self.send(Start([spec], self._sources()))

    @property
    def together(self) -> list[Together]:
        """What it told of triggers whose work is noted as one's."""
        return [message for message in self.messages if isinstance(message, Together)]

    def seen(self, trigger_id: int) -> list[Sighting]:
        """What a watcher has seen, and its troubles."""
        told = [message for message in self.messages if isinstance(message, Seen)]
        return [one for seen in told for one in seen.sightings if one.trigger_id == trigger_id]

    def keep(self, sighting: Sighting, stored: bool = True) -> None:
        """Say that an event of a watcher is stored, or refused."""
        receipt = (sighting.trigger_id, sighting.epoch, sighting.number, stored)
        self.send(Kept([receipt]))

    def kill(
        self, trigger_id: int, cls: str, *, epoch: int = 2, timeout_s: float = 30, **kwargs: Any
    ) -> None:
        """Have the runner call ``on_kill()`` of one trigger."""
        spec = self.spec(trigger_id, cls, epoch, kwargs)
        self.send(Start([], self._sources()))
        self.send(Kill([spec], round(timeout_s * 1e6)))

    def _sources(self) -> list[Source]:
        sent, self._sent_source = self._sent_source, True
        return [] if sent else [self.source]

    @property
    def killed(self) -> dict[int, Killed]:
        """Which triggers it is through with killing."""
        return {one.trigger_id: one for one in self.messages if isinstance(one, Killed)}

    @property
    def words(self) -> str:
        """What it has written into logs of tasks."""
        words = [message for message in self.messages if isinstance(message, Words)]
        return "".join(said.text for message in words for said in message.said)

    def spec(self, trigger_id: int, cls: str, epoch: int, kwargs: dict[str, Any]) -> TriggerSpec:
        """A trigger of a class of the DAG file, or ``module:Class``."""
        return TriggerSpec(
            trigger_id=trigger_id,
            epoch=epoch,
            classpath=cls,
            source=cls if ":" in cls else f"{self._module}:{cls}",
            kwargs=msgspec.Raw(typedjson.encode(kwargs)),
            code_hash="a" * 64,
            fileloc="waits.py",
            dag_id="waits",
            run_id="r1",
            task_id=f"t{trigger_id}",
            map_index=-1,
            try_number=1,
        )

    @property
    def reports(self) -> dict[int, TriggerReport]:
        """Every report so far; a second one for a trigger is an error."""
        found: dict[int, TriggerReport] = {}
        for message in self.messages:
            for report in message.reports if isinstance(message, Reports) else ():
                assert report.trigger_id not in found
                found[report.trigger_id] = report
        return found

    @property
    def blocked(self) -> list[Blocked]:
        """What the watchdog told so far."""
        return [message for message in self.messages if isinstance(message, Blocked)]

    def read_until(self, done: Callable[[], object], timeout: float = 30) -> None:
        """Take messages until ``done()`` is true."""
        deadline = time.monotonic() + timeout
        while not done():
            ready, _, _ = select.select(list(self._frames), [], [], deadline - time.monotonic())
            if not ready:
                raise TimeoutError(f"the runner did not say what was waited for:\n{self.output}")
            for fd in ready:
                data = os.read(fd, 1 << 18)
                if not data:
                    raise EOFError(f"the runner ended:\n{self.output}")
                self.messages += [decode_from_runner(body) for body in self._frames[fd].feed(data)]

    def wait_reports(self, *trigger_ids: int) -> dict[int, TriggerReport]:
        """Wait until these triggers are reported; gives all reports."""
        self.read_until(lambda: set(trigger_ids) <= set(self.reports))
        return self.reports

    def wait_written(self, path: Path, text: str) -> None:
        """Wait until a trigger has written ``text`` into a file, which ``note()`` in it does."""
        self.read_until(lambda: path.exists() and text in path.read_text())

    @property
    def output(self) -> str:
        """What the runner and its triggers printed."""
        return self.log.read_text(errors="replace")

    def culprit(self) -> int:
        """The trigger in whose step the runner ended; 0: in nobody's."""
        return int.from_bytes(os.pread(self._slot, SLOT_BYTES, 0), sys.byteorder)

    def hang_up(self) -> None:
        """Close the line, as the end of a supervisor does."""
        self._line.close()

    def close(self) -> None:
        """End the runner, however it is."""
        self.process.kill()
        self.process.wait()
        self._line.close()
        os.close(self._notes)
        os.close(self._slot)
