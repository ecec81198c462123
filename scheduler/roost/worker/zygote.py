"""The zygote: a single-threaded process with everything preloaded that forks templates.

``python -m roost.worker.zygote FD``: FD is its line to the supervisor. It never sees a database
URL (its environment is scrubbed before the exec) and never runs user code. Each template it forks
executes one version of one DAG file; see :mod:`roost.worker.template`.

It dies with its supervisor, its templates die with it and their tasks with them (PDEATHSIG).
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import sys
from contextlib import suppress

from roost.support.osproc import adopt_orphans, die_with_parent, environ_address
from roost.worker import orphans, preload, protocol, template
from roost.worker.marks import MARK
from roost.worker.rehearsal import rehearse
from roost.worker.tasklog import prepare_streams

__all__ = ["main"]

log = logging.getLogger("roost.worker")


def main(arguments: list[str]) -> int:
    """Serve until the supervisor closes the line."""
    line = socket.socket(fileno=int(arguments[0]))
    die_with_parent(int(arguments[1]))
    adopt_orphans()
    line.set_inheritable(False)
    _die_first()
    setup = protocol.decode_setup(line.recv(protocol.MAX_PACKET))
    prepare_streams(setup.log_level)
    preload.everything()
    rehearse()
    gc.disable()
    gc.collect()
    gc.freeze()
    context = template.Context(setup, environ_address(MARK.encode()))
    return _serve(line, context)


def _die_first() -> None:
    """When memory runs out, the kernel should pick what runs user code, not the supervisor."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "r+b", buffering=0) as score:
        value = min(int(score.read(16)) + 200, 1000)
        score.write(str(value).encode())


def _serve(line: socket.socket, context: template.Context) -> int:
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the supervisor's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    templates: dict[int, int] = {}
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for descriptor, _events in poll.poll():
            if descriptor == woken:
                os.read(woken, 4096)
                _reap(line, templates)
            elif not _obey(line, templates, context, (line.fileno(), woken, wake)):
                return 0


def _obey(
    line: socket.socket, templates: dict[int, int], context: template.Context, ours: tuple[int, ...]
) -> bool:
    """Carry out one order; False when the supervisor has closed the line."""
    packet, handles = protocol.receive(line, 2)
    if not packet:
        return False
    order = protocol.decode_to_zygote(packet)
    if isinstance(order, protocol.NewTemplate):
        try:
            templates[_fork(order, handles, context, ours)] = order.number
        except OSError as error:
            log.error("no template could be forked: %s", error)
            line.send(protocol.encode(protocol.TemplateGone(order.number, 256)))
        for handle in handles:
            os.close(handle)
    else:
        for pid, number in templates.items():
            if number == order.number:
                os.kill(pid, signal.SIGKILL)
    return True


def _fork(
    order: protocol.NewTemplate,
    handles: list[int],
    context: template.Context,
    ours: tuple[int, ...],
) -> int:
    zygote = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent(zygote)
        signal.set_wakeup_fd(-1)
        for descriptor in ours:
            os.close(descriptor)
        status = template.main(order, socket.socket(fileno=handles[0]), handles[1], context)
    except BaseException:
        log.exception("the template of %s ended by an error", order.fileloc)
    finally:
        os._exit(status)


def _reap(line: socket.socket, templates: dict[int, int]) -> None:
    """Report templates that ended, once everything below them is gone as well."""
    gone = []
    while templates:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            break
        number = templates.pop(pid, None)
        if number is not None:
            gone.append(protocol.TemplateGone(number, status))
    if gone:
        orphans.sweep(templates, lambda _pid: False)
    with suppress(OSError):  # the supervisor has left meanwhile: the next poll says so
        for message in gone:
            line.send(protocol.encode(message))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
