"""Frames on stream sockets between a supervisor and the process it serves.

A frame is a four-byte big-endian length and a JSON body (see :mod:`roost.support.wire`).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec

__all__ = ["MAX_FRAME", "FrameBuffer", "FrameTooLarge", "pack", "read_frame", "write_frame"]

MAX_FRAME = 64 * 1024 * 1024
"""No frame is longer than this many bytes; user values are bounded far below it."""

_encoder = msgspec.json.Encoder()


class FrameTooLarge(ValueError):
    """The other side announced a frame beyond :data:`MAX_FRAME`, or does not speak frames."""


def pack(message: object) -> bytes:
    """One message as a frame."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise FrameTooLarge(f"a message of {len(body):,} bytes is longer than {MAX_FRAME:,}")
    return len(body).to_bytes(4, "big") + body


def write_frame(sock: socket.socket, message: object) -> None:
    """Send one message on a blocking socket."""
    sock.sendall(pack(message))


def read_frame(sock: socket.socket) -> bytes | None:
    """The body of the next frame from a blocking socket; None when the other side is gone.

    Raises:
        FrameTooLarge: the announced length is beyond :data:`MAX_FRAME`.
    """
    head = _exactly(sock, 4)
    if head is None:
        return None
    return _exactly(sock, _checked(int.from_bytes(head, "big")))


class FrameBuffer:
    """Cuts what a non-blocking socket delivers into frames.

    Args:
        limit: most bytes of one frame; no more than one such is ever kept.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes and yield the bodies of all frames complete so far.

        Raises:
            FrameTooLarge: the announced length is beyond the limit.
        """
        pending = self._pending
        pending += data
        while len(pending) >= 4:
            end = 4 + _checked(int.from_bytes(pending[:4], "big"), self._limit)
            if len(pending) < end:
                return
            body = bytes(pending[4:end])
            del pending[:end]
            yield body


def _checked(length: int, limit: int = MAX_FRAME) -> int:
    if length > limit:
        raise FrameTooLarge(f"a frame of {length:,} bytes is announced; at most {limit:,} may be")
    return length


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    """``count`` bytes, or None when the stream ends before them."""
    data = sock.recv(count)
    if len(data) == count:
        return data
    parts = bytearray(data)
    while data and len(parts) < count:
        data = sock.recv(count - len(parts))
        parts += data
    return bytes(parts) if len(parts) == count else None
