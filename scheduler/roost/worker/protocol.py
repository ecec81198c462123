"""What a worker's supervisor, its zygote and its templates tell each other.

They talk over unix SEQPACKET sockets, one JSON message a packet; descriptors ride along. Nothing
big travels here: the text of a DAG file goes as a memory file, and a task's spec goes over the
task's own line. Tasks themselves speak frames of :mod:`roost.support.task_requests`.

    supervisor --NewTemplate + line + source, DropTemplate--> zygote --TemplateGone--> supervisor
    supervisor --Fork + the task's line-------> template --Loaded, Report--> supervisor
"""

from __future__ import annotations

import socket

import msgspec

from roost.support.wire import TaskSpec

__all__ = [
    "MAX_PACKET",
    "DropTemplate",
    "Fork",
    "Loaded",
    "NewTemplate",
    "NextTask",
    "Report",
    "Setup",
    "TemplateGone",
    "decode_fork",
    "decode_from_template",
    "decode_next_task",
    "decode_setup",
    "decode_template_gone",
    "decode_to_zygote",
    "encode",
    "receive",
]

MAX_PACKET = 128 * 1024
"""Longest packet in bytes; longer texts (tracebacks) are cut before they are sent."""


class Setup(msgspec.Struct, array_like=True):
    """The first message to a zygote.

    Attributes:
        dags_folder: absolute; on ``sys.path`` of every template.
        log_level: of the tasks' root logger.
        most_tasks: that one process runs (``worker.isolation``).
    """

    dags_folder: str
    log_level: str
    most_tasks: int = 1


class NewTemplate(msgspec.Struct, array_like=True, tag=1):
    """Fork a template for one version of a DAG file. Two descriptors: its line, the source."""

    number: int
    fileloc: str
    code_hash: str


class DropTemplate(msgspec.Struct, array_like=True, tag=2):
    """SIGKILL a template, and with it its tasks: it hangs."""

    number: int


class TemplateGone(msgspec.Struct, array_like=True):
    """A template has ended with this wait status, and so has all that descended from it."""

    number: int
    status: int


class Fork(msgspec.Struct, array_like=True):
    """Fork a task process. One descriptor: its end of the line on which its spec waits.

    Attributes:
        dispatch_id: whose process it is.
        log_path: absolute; made with its folders if it does not exist.
    """

    dispatch_id: int
    log_path: str


class NextTask(msgspec.Struct, array_like=True):
    """Another task for a process that stays, over its line.

    Attributes:
        log_path: absolute; made with its folders if it does not exist.
    """

    spec: TaskSpec
    log_path: str


class Loaded(msgspec.Struct, array_like=True, tag=1):
    """The DAG file has been executed; ``error`` is the traceback when it could not be."""

    error: str | None = None


class Report(msgspec.Struct, array_like=True, tag=2):
    """Task processes that were forked ``(dispatch_id, pid)`` and that ended ``(…, status)``.

    ``failed`` holds dispatches for which no process could be made, with the reason.
    """

    forked: list[tuple[int, int]] = []
    exited: list[tuple[int, int]] = []
    failed: list[tuple[int, str]] = []


def receive(line: socket.socket, descriptors: int) -> tuple[bytes, list[int]]:
    """The next packet and what rode along; empty when the other side is gone."""
    try:
        packet, handles, _flags, _from = socket.recv_fds(line, MAX_PACKET, descriptors)
    except ConnectionError:
        return b"", []
    return packet, handles


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
decode_setup = msgspec.json.Decoder(Setup).decode
decode_to_zygote = msgspec.json.Decoder(NewTemplate | DropTemplate).decode
decode_template_gone = msgspec.json.Decoder(TemplateGone).decode
decode_fork = msgspec.json.Decoder(Fork).decode
decode_next_task = msgspec.json.Decoder(NextTask).decode
decode_from_template = msgspec.json.Decoder(Loaded | Report).decode
