"""Bad triggers by family: what each does wrong is its class, what must follow is told here.

Every file beside this one is the text of a DAG file, behind that of ``common``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["FAMILIES", "Kind", "code_of"]


class Kind(NamedTuple):
    """What must become of a bad trigger.

    Attributes:
        outcome: ``failed``: its task fails with its error; ``struck``: with its third strike;
            ``fired``: it gets its event, since it has harmed nobody; ``undone``: the same, and what
            it did to the process is put back, without its name; ``ended``: nobody waits for
            it any more, and it ends.
        says: what the error says; of those that fire or end, what the log says of them.
        line: a part of the line of its file that must be named, where ``says`` is.
    """

    outcome: str
    says: str = ""
    line: str = ""


def failed(says: str, line: str = "") -> Kind:
    """Its task fails, and the error tells why, and where."""
    return Kind("failed", says, line)


def struck(says: str, line: str = "") -> Kind:
    """It ends or blocks its runner three times, and its task fails."""
    return Kind("struck", says, line)


def fired(says: str = "", line: str = "") -> Kind:
    """It harms nobody."""
    return Kind("fired", says, line)


def undone() -> Kind:
    """What it changed for all is put back; whose doing it was is not seen."""
    return Kind("undone", "was changed in a step of some trigger")


def ended(says: str = "") -> Kind:
    """It was cancelled, and is gone."""
    return Kind("ended", says)


_HELD = "was changed in a step of"  # and is put back
_BLOCKED = "blocked its runner for"
_BLOCKS = "blocks every trigger of this runner"

FAMILIES: dict[str, dict[str, Kind]] = {
    "protocol": {
        "YieldsTwice": fired(),
        "YieldsEndlessly": fired(),
        "NoRun": failed("abstract class NoRun"),
        "YieldsClass": failed("yield TriggerEvent(payload) instead"),
        "RunRaises": failed("ZeroDivisionError", "before the generator"),
        "RunIsNone": failed("TypeError"),
        "AnextIsNoAwaitable": failed("TypeError"),
        "CloseRaises": fired("no such door"),
        "CtorBaseException": failed("not even an Exception", "raise Own"),
        "CtorTakesNothing": failed("missing 1 required positional argument: 'rows'"),
        "CtorRecurses": failed("RecursionError", "self.__init__()"),
        "RefusesAttributes": failed("trigger_id is mine", "raise AttributeError"),
        "CleanupIsNotThere": fired("no cleanup today"),
        "CleanupReturnsNone": fired("TypeError"),
        "OnStoredRefuses": fired("on_stored is not for you"),
        "OnStoredExits": fired("SystemExit: 11"),
        "RaisesGeneratorExit": failed("GeneratorExit", "raise GeneratorExit"),
        "RaisesStopIteration": failed("StopIteration", "raise StopIteration"),
        "RaisesGroup": failed("one of many", "raise BaseExceptionGroup"),
        "RaisesWithoutEnd": failed("turtle"),
        "RaisesBadNotes": failed("NotesRefuse"),
        "CleanupRaisesUnprintable": fired("StrExits"),
        "TaskRaisesUnprintable": fired("StrExits"),
        "DelRecurses": fired(),
        "RaisesMegabytes": failed("… cut …"),
    },
    "payloads": {
        "Infinite": failed("inf"),
        "NulKey": failed("U+0000"),
        "Deep": failed("cannot be stored"),
        "HugeInt": fired(),
        "NumberKey": failed("cannot be stored"),
        "LyingDict": failed("is not JSON"),
        "LyingText": failed("is not JSON"),
        "OddDatetime": failed("cannot be stored"),
        "Generator": failed("cannot be stored"),
        "ManyItems": failed("cannot be stored"),
        "PayloadRaises": failed("ZeroDivisionError"),
        "Raw": fired(),
        "MemoryHog": failed("MemoryError", "bytearray"),
        "ManyXComs": failed("at most 33,554,432 go with one event"),
    },
    "cancels": {
        "Swallows": ended("does not end when cancelled and is dropped"),
        "SwallowsOnce": ended(),
        "SleepsInFinally": ended(),
        "Shields": ended("does not end when cancelled and is dropped"),
        "FiresWhenCancelled": ended(),
        "CleanupHangs": ended("TimeoutError"),
        "CleanupRaises": ended("the broom is broken"),
        "CleanupExits": ended("SystemExit: 13"),
        "CleanupBlocks": ended("has blocked its runner"),
        "CleanupCancelsItself": ended("CancelledError"),
        "ExitsWhenCancelled": ended(),
    },
    "loops": {
        "StopsTheLoop": fired(),
        "ClosesTheLoop": failed("RuntimeError", ".close()"),
        "RunsALoop": failed("RuntimeError", "asyncio.run("),
        "ReplacesTheLoop": fired(),
        "CancelsAll": fired("tried to cancel"),
        "CancelsAllWithItself": failed("cancelled itself"),
        "LeaksTasks": fired(),
        "FloodsTheLoop": fired(),
        "LosesATask": fired("nobody caught me"),
        "ExitsInCallback": fired(),
        "HandlesExceptions": fired(_HELD),
        "MakesTasksItsWay": fired(_HELD),
        "Debugs": fired(_HELD),
        "ForgetsToAwait": fired(),
    },
    "output": {
        "PrintsEndlessLine": fired(),
        "PrintsToStderr": fired("lines dropped"),
        "LogsAFlood": fired("lines dropped"),
        "LogsNonsense": fired(),
        "WritesRawBytes": fired(),
        "ReplacesStdout": fired(_HELD),
        "ClosesStdout": fired(),
        "ClosesFds": fired(),
        "EndsLogging": fired(_HELD),
        "ConfiguresLogging": fired(_HELD),
        "WarnsAsErrors": fired(),
        "PrintsSurrogates": fired(),
        "PrintsInThread": fired("lines dropped"),
    },
    "process": {
        "ForksAndStays": fired(),
        "ForksAndFires": fired(),
        "ForksMany": fired(),
        "ForksAway": fired(),
        "UsesMultiprocessing": fired(),
        "StartsASession": failed("PermissionError", "os.setsid()"),
        "KillsItsGroupSoftly": fired(),
        "IgnoresSignals": undone(),
        "SetsAnAlarm": fired(),
        "SignalsItself": fired(),
        "ChangesFolder": undone(),
        "ChangesUmask": undone(),
        "ClearsEnviron": fired(),
        "IsNice": fired(),
        "LeaksThreads": fired(),
        "ExitsInThread": fired(),
        "RaisesInThread": failed("SystemExit: 3"),
        "LeaksFiles": fired(),
        "WritesToAllPipes": Kind("undone", "wrote to a descriptor that is not its own"),
        "ReadsStdin": failed("EOFError", "input()"),
    },
    "patches": {
        "PatchesTime": fired(_HELD),
        "PatchesMonotonic": failed("patched by a neighbour"),
        "PatchesSleep": fired(_HELD),
        "PatchesTheEvent": fired(_HELD),
        "PatchesTheBase": fired(_HELD),
        "PatchesOpen": fired(_HELD),
        "StopsCollecting": fired(_HELD),
        "LowersRecursion": fired(_HELD),
        "Traces": fired(_HELD),
        "TracesBadly": failed("patched by a neighbour"),
        "HandlesFaults": fired(),
        "SeedsRandom": fired(),
        "ReplacesHooks": fired(),
        "ForgetsModules": fired(),
    },
    "blocks": {
        "SleepsSync": struck(_BLOCKED, "time.sleep(0.4)"),
        "Spins": struck(_BLOCKED, "time.thread_time()"),
        "ReadsSocket": struck(_BLOCKED, "mine.recv(1)"),
        "RunsCommand": struck(_BLOCKED, "subprocess.run("),
        "WaitsForQueue": struck(_BLOCKED, "queue.Queue().get("),
    },
    "blocks gil": {
        "MatchesBadly": struck(_BLOCKED, "re.match("),
        "Counts": struck(_BLOCKED, "sum(range("),
        "Multiplies": struck(_BLOCKED, "pow(7, 2_500_000)"),
        "SleepsInC": struck(_BLOCKED),  # it does not even run: its line is seen by chance only
        "ReadsHugeJson": struck(_BLOCKED, "json.loads("),
    },
    "blocks late": {
        "BlocksInInit": fired(_BLOCKS, "# in init"),
        "BlocksInCleanup": fired(_BLOCKS, "# in cleanup"),
        "BlocksInFinally": fired(_BLOCKS, "# in finally"),
        "BlocksInCallback": fired(_BLOCKS, "# in a callback"),
        "BlocksInTimer": fired("sleep(), which the loop was to call"),
        "BlocksInDoneCallback": fired(_BLOCKS, "# when done"),
        "BlocksInDel": fired(_BLOCKS, "# in del"),
    },
    "ends": {
        "ExitsAtOnce": struck("the runner exited with code 0"),
        "KillsItself": struck("killed by signal 9"),
        "Segfaults": struck("SIGSEGV"),
        "Aborts": struck("SIGABRT"),
        "BecomesAnother": struck("the runner exited with code 0"),
    },
    "alone ends": {
        "KillsItself": struck("killed by signal 9"),
    },
    "ends exits": {
        "OverflowsTheStack": struck("SIGSEGV"),
        "LimitsItsCpu": struck("killed by signal"),
        "ForksAndExits": struck("the runner exited with code 4"),
        "ExitsInCallback": struck("the runner exited with code 6"),
        "ExitsInCleanup": struck("the runner exited with code 7"),
    },
    "ends threads": {
        "ExitsInThread": struck("the runner exited with code 6"),
        "ExitsInTimer": struck("the runner exited with code 7"),
        "ExitsInToThread": struck("the runner exited with code 8"),
    },
    "unseen ends line": {
        "ClosesAll": struck("the runner"),
        "WritesGarbage": struck("sent what is no message"),
    },
    "unseen ends killed": {
        "KilledByItsChild": struck("killed by signal 9"),
        "AbortedByItsChild": struck("SIGABRT"),
    },
    "hangs": {
        "StopsItself": struck("it was stopped for 1 s"),
        "LocksItself": struck("it was silent for 5 s"),
        "MatchesForever": struck("it was silent for 5 s"),
    },
}  # fmt: skip


def code_of(family: str) -> str:
    """The text of the DAG file with the classes of a family."""
    folder = Path(__file__).parent
    name = family.split()[-1]
    return (folder / "common.py").read_text() + (folder / f"{name}.py").read_text()
