"""What triggers print and log goes to the supervisor's stderr, with ``***`` for secrets."""

from __future__ import annotations

import io
import sys

from roost.support.masking import mask

__all__ = ["mask_streams"]


class _Masked(io.TextIOWrapper):
    """A text stream that hides the secrets this process has been given."""

    def write(self, text: str, /) -> int:
        return super().write(mask(text))


def mask_streams() -> None:
    """Hide secrets in stdout and stderr from now on; a log record is one write, so is a text."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        masked = _Masked(
            stream.detach(), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
        setattr(sys, name, masked)
