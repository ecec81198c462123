"""What triggers log and print, on its way from the runner to the logs of their tasks (D21).

Whose words they are is told by :data:`roost.triggerer.case.CURRENT`, which the tasks, callbacks and
``asyncio.to_thread`` calls of a trigger inherit; what belongs to no trigger stays in this
process's own log. Nothing is kept for a trigger before it says something. What it says is bounded:
so many lines a second, so many bytes in all, and the rest is only counted.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable

from roost.dag.trigger import BaseTrigger
from roost.support.logfile import FORMAT, Stamped
from roost.support.masking import mask_also
from roost.triggerer.case import CURRENT, Case
from roost.triggerer.messages import Said

__all__ = ["Handler", "Journal", "black_box"]

log = logging.getLogger(__name__)

LINES_PER_S = 200
MOST_BYTES = 16 << 20
_LINE_BYTES = 64 << 10
_PENDING_BYTES = 4 << 20
# Of one message, which has its limit: ten thousand that fail at once have much to say.
_SENT_BYTES = 2 << 20
_PAUSE_S = 0.05
_SPEAKERS = 1_000
_OWN = "roost.triggerer."
_OWN_FORMAT = "[%(asctime)s] %(levelname)s - %(message)s"


class _Speaker:
    """A trigger that has said something: where that goes, and how much more it may say."""

    __slots__ = (
        "dropped", "full", "lines", "mark", "open", "said", "second", "secrets", "written",
    )  # fmt: skip

    def __init__(self, case: Case) -> None:
        self.mark = f"[trigger {case.trigger_id}] "
        self.said = (case.dag_id, case.run_id, case.task_id, case.map_index, case.try_number)
        self.secrets = case.secrets
        self.open = ""  # the beginning of a line that was printed so far
        self.second = 0  # for which lines are counted
        self.lines = 0
        self.dropped = 0
        self.written = 0
        self.full = False


class Journal:
    """The words of all triggers of this process, in batches; any thread may add to them.

    Args:
        find: the case of a trigger that runs here.
        send: takes a batch; called in the loop's thread, False: it has no room for it now.
        later: has its second argument called in the loop's thread, after so many seconds.
    """

    def __init__(
        self,
        find: Callable[[int], Case | None],
        send: Callable[[list[Said]], bool],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._find = find
        self._send = send
        self._later = later
        self._thread = threading.get_ident()
        self._lock = threading.RLock()
        self._speakers: dict[int, _Speaker] = {}
        self._most_speakers = _SPEAKERS
        self._pending: dict[int, list[str]] = {}
        self._size = 0
        self._timer = False  # a flush is on its way
        self._sent_at = float("-inf")
        self._formatter = Stamped(FORMAT)
        self._own_formatter = Stamped(_OWN_FORMAT)
        self._forked = False
        os.register_at_fork(after_in_child=self._be_silent)

    # -- for whoever has something to say

    def record(self, record: logging.LogRecord) -> bool:
        """Take a log record; False: it is no trigger's."""
        trigger_id = CURRENT.get(None)
        speaker = None if trigger_id is None else self._speaker(trigger_id)
        if trigger_id is None or speaker is None:
            return False
        lines = _marked(self._formatter, record, speaker.mark)
        with self._lock:
            self._add(trigger_id, speaker, lines)
        return True

    def printed(self, text: str) -> bool:
        """Take a piece of what is printed; False: it is no trigger's."""
        trigger_id = CURRENT.get(None)
        speaker = None if trigger_id is None else self._speaker(trigger_id)
        if trigger_id is None or speaker is None:
            return False
        with self._lock:
            *lines, rest = (speaker.open + text).split("\n")
            while len(rest) > _LINE_BYTES:  # a line that has no end
                lines.append(rest[:_LINE_BYTES])
                rest = rest[_LINE_BYTES:]
            speaker.open = rest
            if lines:
                self._add(trigger_id, speaker, [speaker.mark + line for line in lines])
        return True

    def say(self, case: Case, text: str, level: int = logging.INFO) -> None:
        """The runner's own words about a trigger, which no limit holds back."""
        if not case.of_task:  # a watcher has no task, and no log of its own
            log.warning("[trigger %d] %s", case.trigger_id, mask_also(text, case.secrets))
            return
        record = logging.LogRecord("roost", level, "", 0, text, None, None)
        with self._lock:
            speaker = self._added(case)
            lines = _marked(self._own_formatter, record, speaker.mark)
            self._keep(case.trigger_id, [mask_also(line, speaker.secrets) for line in lines])

    def watcher(self) -> Case | None:
        """The watcher whose code runs now; what it logs goes into this process's own log."""
        trigger_id = CURRENT.get(None)
        case = None if trigger_id is None else self._find(trigger_id)
        return None if case is None or case.of_task else case

    def ended(self, case: Case) -> None:
        """A trigger is over: its last line may have no end, and something may have been dropped."""
        with self._lock:
            speaker = self._speakers.get(case.trigger_id)
            if speaker is None:
                return
            rest, speaker.open = speaker.open, ""
            if rest:
                self._add(case.trigger_id, speaker, [speaker.mark + rest])
            self._tell_dropped(case.trigger_id, speaker)

    # -- inside

    def _be_silent(self) -> None:
        """In a process that a trigger forked: it must not speak on our line."""
        self._forked = True

    def _speaker(self, trigger_id: int) -> _Speaker | None:
        if self._forked:
            return None
        speaker = self._speakers.get(trigger_id)
        if speaker is None:
            case = self._find(trigger_id)
            if case is None or not case.of_task:
                return None
            with self._lock:
                speaker = self._added(case)
        return speaker

    def _added(self, case: Case) -> _Speaker:
        """Who speaks; the lock is held.

        Triggers that ended are kept for what their threads still say, but not for ever.
        """
        speaker = self._speakers.get(case.trigger_id)
        if speaker is None:
            if len(self._speakers) >= self._most_speakers:
                self._forget_some()
            speaker = self._speakers[case.trigger_id] = _Speaker(case)
        return speaker

    def _forget_some(self) -> None:
        over = [
            key for key in self._speakers if self._find(key) is None and key not in self._pending
        ]
        for key in over:
            del self._speakers[key]
        self._most_speakers = max(_SPEAKERS, 2 * len(self._speakers))

    def _add(self, trigger_id: int, speaker: _Speaker, lines: list[str]) -> None:
        self._speakers.setdefault(trigger_id, speaker)  # or it was forgotten since
        second = int(time.monotonic())
        if second != speaker.second:
            self._tell_dropped(trigger_id, speaker)
            speaker.second, speaker.lines = second, 0
        room = max(0, LINES_PER_S - speaker.lines)
        if speaker.full or self._size > _PENDING_BYTES:
            room = 0
        kept = [mask_also(line, speaker.secrets)[:_LINE_BYTES] for line in lines[:room]]
        speaker.lines += len(kept)
        speaker.dropped += len(lines) - len(kept)
        speaker.written += sum(map(len, kept))
        self._keep(trigger_id, kept)
        if speaker.written > MOST_BYTES and not speaker.full:
            speaker.full = True
            most = f"{MOST_BYTES >> 20} MiB"
            self._keep(trigger_id, [f"{speaker.mark}… {most} written, the rest is dropped"])

    def _tell_dropped(self, trigger_id: int, speaker: _Speaker) -> None:
        if speaker.dropped and not speaker.full:
            self._keep(trigger_id, [f"{speaker.mark}… {speaker.dropped} lines dropped"])
            speaker.dropped = 0

    def _keep(self, trigger_id: int, lines: list[str]) -> None:
        if not lines:
            return
        sendable = [_sendable(line) for line in lines]
        self._pending.setdefault(trigger_id, []).extend(sendable)
        self._size += sum(map(len, sendable))
        if threading.get_ident() != self._thread:
            self._plan()
        elif time.monotonic() - self._sent_at >= _PAUSE_S:
            self.flush()  # at once: these may be the last words of this process
        else:
            self._plan()

    def _plan(self) -> None:
        if not self._timer:
            self._timer = True
            self._later(_PAUSE_S, self._on_time)

    def _on_time(self) -> None:
        self._timer = False
        self.flush()

    def flush(self) -> bool:
        """Send what there is; in the loop's thread. False: there is no room for all of it now."""
        with self._lock:
            while self._pending:
                batch = self._next_batch()
                self._sent_at = time.monotonic()
                if not self._send(batch):
                    self._plan()
                    return False
                for said in batch:
                    self._size -= sum(map(len, self._pending.pop(said.trigger_id)))
        return True

    def _next_batch(self) -> list[Said]:
        batch: list[Said] = []
        size = 0
        for trigger_id, lines in self._pending.items():
            text = "\n".join(lines) + "\n"
            size += len(text)
            if batch and size > _SENT_BYTES:
                break
            batch.append(Said(trigger_id, *self._speakers[trigger_id].said, text))
        return batch


class Handler(logging.Handler):
    """Sends the records of triggers to their journal, and all others to the process's log.

    What this package itself says of a trigger goes to both.
    """

    def __init__(self, journal: Journal, other: logging.Handler) -> None:
        super().__init__()
        self._journal = journal
        self._other = other

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        try:
            taken = self._journal.record(record)
        except Exception:  # such as arguments that do not fit the message
            self.handleError(record)
            return
        if taken and not record.name.startswith(_OWN):
            return
        watcher = None if taken or record.name.startswith(_OWN) else self._journal.watcher()
        if watcher is not None:
            record = _of_watcher(record, watcher)
        self._other.handle(record)


def _of_watcher(record: logging.LogRecord, case: Case) -> logging.LogRecord:
    """The record with the mark of a watcher, and without its secrets."""
    marked = copy.copy(record)
    text = mask_also(record.getMessage(), case.secrets)
    marked.msg, marked.args = f"[trigger {case.trigger_id}] {text}"[:_LINE_BYTES], None
    return marked


def _sendable(line: str) -> str:
    """The line without what no message can carry: halves of characters."""
    return line if line.isascii() else line.encode("utf-8", "backslashreplace").decode()


def _marked(formatter: logging.Formatter, record: logging.LogRecord, mark: str) -> list[str]:
    """The lines of a record, each with the mark: the first behind what a record begins with."""
    lines = formatter.format(record).split("\n")
    head, dash, rest = lines[0].partition(" - ")
    return [f"{head}{dash}{mark}{rest}", *(mark + line for line in lines[1:])]


def black_box(trigger: BaseTrigger | None, trigger_id: int) -> str:
    """The last polls of a trigger, as it noted them; empty when it noted none."""
    if trigger is None or not (notes := BaseTrigger.last_notes(trigger)):
        return ""
    lines = [f"the last polls of trigger {trigger_id} ({type(trigger).__name__}):"]
    for text, first, last, count in notes:
        when = _clock(last) if count == 1 else f"{_clock(first)} to {_clock(last)}, {count} times"
        lines.append(f"  {when}: {text}")
    return "\n".join(lines)


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
