"""What a triggerer and its runner child say to each other, in frames of roost.support.frames.

The runner receives work on one socketpair and reports on the same; its watchdog thread speaks on
a pipe of its own, because it must be heard while the runner's loop is blocked.
"""

from __future__ import annotations

import signal

import msgspec

from roost.support.task_requests import ConnectionGet, Reply, VariableGet, XComPull
from roost.support.trigger_wire import TriggerReport, TriggerSpec

__all__ = [
    "SHARED_BYTES",
    "SLOT_BYTES",
    "STACK_AT",
    "STACK_SIGNAL",
    "Answer",
    "Ask",
    "Beat",
    "Blocked",
    "Cancel",
    "Forget",
    "FromRunner",
    "Kept",
    "Kill",
    "Killed",
    "Reports",
    "Said",
    "Seen",
    "Setup",
    "Sighting",
    "Source",
    "Start",
    "Stop",
    "Stored",
    "ToRunner",
    "Together",
    "Words",
    "decode_from_runner",
    "decode_to_runner",
]

# Memory that both sides see, native integers. It outlives the runner (roost.triggerer.steps).
# First the id of the trigger whose step the runner is executing, and of the one whose code it
# imports, or 0; then how often its watchdog has looked, and the kernel's id of that thread, and of
# the one that imports.
SLOT_BYTES = 16
SHARED_BYTES = 40
# Behind it in the same file: the stack of the thread that gets this signal, which no trigger has a
# use for (roost.triggerer.held).
STACK_AT = 4096
STACK_SIGNAL = signal.SIGRTMIN + 4


class Source(msgspec.Struct):
    """One version of a DAG file, sent to a runner once: its text, and what it may load.

    Attributes:
        triggers: ``module:qualname`` of every trigger class that a parser found in it.
        helpers: path and text of the modules below the DAGs folder that it imports, by name.
    """

    code_hash: str
    fileloc: str
    source: str
    triggers: list[str]
    helpers: dict[str, tuple[str, str]] = {}


class Setup(msgspec.Struct, tag=True):
    """The first message to a runner.

    Attributes:
        stream_queue: how many items of a shared stream may wait for one watcher.
        stream_ack_timeout_us: how long it may take for one.
    """

    dags_folder: str
    log_level: str = "INFO"
    stream_queue: int = 1024
    stream_ack_timeout_us: int = 300_000_000


class Start(msgspec.Struct, tag=True):
    """Triggers to run, and DAG file versions that these or later ones need."""

    specs: list[TriggerSpec]
    sources: list[Source] = []


class Forget(msgspec.Struct, tag=True):
    """Versions of DAG files that no trigger runs any more; they are sent anew if one does."""

    code_hashes: list[str]


class Cancel(msgspec.Struct, tag=True):
    """Triggers whose rows are gone, or claimed by another triggerer: end them, report nothing.

    Attributes:
        over: those whose row is gone: their wait timed out, or a user ended it.
    """

    trigger_ids: list[int]
    over: list[int] = []


class Kill(msgspec.Struct, tag=True):
    """Triggers whose wait a user has ended: call their ``on_kill()`` (D10).

    Attributes:
        specs: what they are, should they not run; the epochs are those of the kills.
        timeout_us: bounds each call.
    """

    specs: list[TriggerSpec]
    timeout_us: int


class Killed(msgspec.Struct, tag=True):
    """Nothing more is to be done about a trigger that was to be killed.

    Attributes:
        epoch: of the kill.
        called: it has an ``on_kill()``, and that was called, or could not be.
        failed: that did not end well; its task's log tells more.
    """

    trigger_id: int
    epoch: int
    called: bool = False
    failed: bool = False


class Answer(msgspec.Struct, tag=True):
    """The reply to the request of this number; each gets one, in whatever order."""

    number: int
    reply: Reply


class Stored(msgspec.Struct, tag=True):
    """What became of reports that wait for it: trigger, epoch, and whether it is stored."""

    receipts: list[tuple[int, int, bool]]


class Sighting(msgspec.Struct, omit_defaults=True):
    """What a watcher's trigger has seen, or what is wrong with it (D13).

    Attributes:
        number: goes up with each.
        extra: of the asset event, typed JSON.
        key: of what it has seen, where the trigger gives one.
        trouble: why it is begun anew; then it has seen nothing.
    """

    trigger_id: int
    epoch: int
    number: int
    extra: msgspec.Raw = msgspec.Raw(b"{}")
    key: str | None = None
    trouble: str | None = None


class Seen(msgspec.Struct, tag=True):
    """What watchers have seen, oldest first for each."""

    sightings: list[Sighting]


class Kept(msgspec.Struct, tag=True):
    """What became of sightings: trigger, epoch, number, and whether it is stored."""

    receipts: list[tuple[int, int, int, bool]]


class Stop(msgspec.Struct, tag=True):
    """End every trigger and exit within ``grace_us`` microseconds."""

    grace_us: int


class Beat(msgspec.Struct, tag=True):
    """The runner's loop turns: sent once a second, and first as soon as it does.

    Attributes:
        running: triggers that it has.
        polls: polls of pooled triggers since the last beat.
        poll_errors: how many of them failed.
        empty_mb: memory of the process before it has a trigger, in MiB; the first beat tells it.
    """

    running: int
    polls: int = 0
    poll_errors: int = 0
    empty_mb: float = 0.0


class Reports(msgspec.Struct, tag=True):
    """What became of triggers, oldest first."""

    reports: list[TriggerReport]


class Ask(msgspec.Struct, tag=True):
    """A trigger wants to know something that only the database knows.

    Attributes:
        number: of the request, by which its answer is known.
        trigger_id: who asks.
    """

    number: int
    trigger_id: int
    request: XComPull | VariableGet | ConnectionGet


class Together(msgspec.Struct, tag=True):
    """A poll for many is about to begin, told when it is for others than before.

    It is noted as the work of one of them. Should it end the runner, all of them have done so.

    Attributes:
        trigger_id: whose work it is noted as.
        trigger_ids: everybody's, that one included.
    """

    trigger_id: int
    trigger_ids: list[int]


class Said(msgspec.Struct, array_like=True):
    """Whole lines that a trigger logged or printed, as its task's log is to have them."""

    trigger_id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    text: str


class Words(msgspec.Struct, tag=True):
    """What triggers logged and printed, oldest first for each (D21)."""

    said: list[Said]


class Blocked(msgspec.Struct, tag=True):
    """One trigger keeps the loop from turning (D20), told by the runner's watchdog thread.

    Or the import of its code takes long: others wait for that, too, but the loop turns.

    Attributes:
        trigger_id: None when the loop is blocked outside every trigger's task.
        label: ``dag_id.task_id run run_id`` of it.
        where: ``file:line in function``, the innermost frame of the user's code.
        blocked_us: for how long it was seen so far, without what the loop waited for a CPU.
        over: the loop turns again: that was all of it.
        dag_id: of the trigger's task; empty where it has none, or is not known.
        task_id: of the same.
        importing: it is the import of its code.
        held: seen by the supervisor: nobody else in the runner gets the interpreter.
    """

    trigger_id: int | None
    label: str
    where: str
    blocked_us: int
    over: bool = False
    dag_id: str = ""
    task_id: str = ""
    importing: bool = False
    held: bool = False

    @property
    def who(self) -> str:
        """Who blocks, for people; a trigger that has just ended has no row to be named by."""
        if self.trigger_id is None:
            return f"unknown code ({self.label})" if self.label else "unknown code"
        return f"trigger {self.trigger_id} ({self.label or 'which has ended since'})"


ToRunner = Setup | Start | Forget | Cancel | Kill | Answer | Stop | Stored | Kept
FromRunner = Beat | Reports | Killed | Ask | Together | Blocked | Words | Seen

decode_to_runner = msgspec.json.Decoder(ToRunner).decode
decode_from_runner = msgspec.json.Decoder(FromRunner).decode
