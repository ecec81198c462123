"""Where what is printed in a runner goes: to the log of a trigger's task, or to our stderr.

Secrets are hidden in both.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from roost.support.masking import mask

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["mask_streams", "share_streams"]

TakeFn = Callable[[str], bool]


class _Masked(io.TextIOWrapper):
    """A text stream that hides the secrets this process has been given.

    Attributes:
        take: takes a text instead, if it wants to.
    """

    take: TakeFn | None = None

    def write(self, text: str, /) -> int:
        if self.take is not None and self.take(text):
            return len(text)
        return self.write_here(text)

    def write_here(self, text: str) -> int:
        """Write a text that nobody else is to take."""
        return super().write(mask(text))

    @property
    def buffer(self) -> Any:
        """Where bytes are written to."""
        return _Bytes(self)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are, unless somebody takes them."""
        if self.take is None or not self.take(data.decode("utf-8", "backslashreplace")):
            self.flush()
            cast(io.BufferedWriter, super().buffer).write(data)


class _Here:
    """A stream for a log handler: nobody takes what it writes."""

    def __init__(self, stream: _Masked) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write_here(text)

    def flush(self) -> None:
        self._stream.flush()


class _Bytes(io.RawIOBase):
    def __init__(self, stream: _Masked) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, data: ReadableBuffer, /) -> int:
        taken = bytes(data)
        self._stream.write_bytes(taken)
        return len(taken)

    def flush(self) -> None:
        self._stream.flush()


def mask_streams() -> _Here:
    """Hide secrets in stdout and stderr from now on; a log record is one write, so is a text.

    Returns:
        What this process's own log is written to.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        masked = _Masked(
            stream.detach(), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
        setattr(sys, name, masked)
    return _Here(masked)


def share_streams(take: TakeFn) -> None:
    """Offer all that is written to them to ``take`` first; after :func:`mask_streams`."""
    for name in ("stdout", "stderr"):
        getattr(sys, name).take = take
