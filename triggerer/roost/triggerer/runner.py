"""The runner: one process, one asyncio loop, the user's triggers.

``python -m roost.triggerer.runner`` knows no database. Its supervisor sends it triggers over a
socketpair and takes its reports; when the supervisor goes away it ends. asyncio here, not anyio:
triggers are asyncio code (D8), and a waiting trigger costs half the memory that an anyio task
takes. This file makes the process and keeps its loop turning; what runs in it: ``host``.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from roost.dag.runtime import serving_triggers
from roost.triggerer.case import CURRENT, explain, explain_briefly
from roost.triggerer.commons import Commons
from roost.triggerer.exits import note_exits
from roost.triggerer.host import Host
from roost.triggerer.journal import Handler
from roost.triggerer.messages import STACK_SIGNAL
from roost.triggerer.steps import attach, note_callbacks, started_by, task_factory
from roost.triggerer.streams import mask_streams, share_streams
from roost.triggerer.watchdog import Watchdog

__all__ = ["main"]

log = logging.getLogger("roost.triggerer.runner")  # also where this module is __main__

# What ends a process that has no handler.
_DEADLY = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGVTALRM,
    signal.SIGPROF, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # an optional package, and only this process has a use for it
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a trigger's own tasks and callbacks leave uncaught: one log entry, nobody else hurt."""
    error = context.get("exception")
    text = "" if error is None else f"\n{explain(error)}"
    task = context.get("task") or context.get("future")
    trigger_id = started_by(task) if isinstance(task, asyncio.Task) else None
    if trigger_id is not None:
        CURRENT.set(trigger_id)  # its log is to have it; this callback's context is its own
    log.error("a trigger's callback or task failed: %s%s", context.get("message"), text)


def _run(loop: asyncio.AbstractEventLoop, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Turn the loop to the end of ``start()``, whatever a trigger's callbacks raise into it."""
    main_task = asyncio.ensure_future(start(), loop=loop)
    while not main_task.done():
        try:
            loop.run_until_complete(main_task)
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio lets these two fly out of a task or callback. The loop is intact: go on.
            log.error(
                "a trigger's task or callback raised %s; the runner goes on",
                explain_briefly(error),
            )
        except RuntimeError:
            if main_task.done():
                raise
            log.error("a trigger stopped the loop; the runner goes on")


def _prepare_process() -> None:
    for number in _DEADLY:
        # Only the supervisor stops a runner: systemd and Ctrl-C signal the whole group, and an
        # alarm that a trigger set is nobody else's. A handler, not SIG_IGN, because children that
        # a trigger starts would inherit that.
        signal.signal(number, lambda *_: None)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a socket for each trigger
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """``python -m roost.triggerer.runner LINE_FD NOTES_FD SLOT_FD``."""
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    own = logging.StreamHandler(mask_streams())
    own.setFormatter(logging.Formatter(f"{stamp}runner[%(process)d] %(levelname)s %(message)s"))
    _prepare_process()
    line_fd, notes, slot = (int(word) for word in sys.argv[1:4])
    attach(slot)
    # In C, and of the thread that the signal interrupts: it needs no GIL to say where that is.
    faulthandler.register(STACK_SIGNAL, slot, all_threads=False)
    note_callbacks()
    note_exits()
    for fd in (line_fd, notes, slot):
        os.set_inheritable(fd, False)
    line = socket.socket(fileno=line_fd)
    line.setblocking(False)
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    loop.set_task_factory(task_factory)
    loop.set_exception_handler(_complain)
    host = Host(loop)
    logging.basicConfig(level=logging.INFO, handlers=[Handler(host.journal, own)])
    share_streams(host.journal.printed)
    host.keep(Commons(loop))
    watchdog = Watchdog(loop, host.name_task, host.name_trigger, notes)
    watchdog.start()
    with serving_triggers(host.asking):
        _run(loop, lambda: host.serve(line))
    os._exit(0)  # threads that triggers left behind do not keep the process


if __name__ == "__main__":
    main()
