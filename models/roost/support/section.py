"""The base of every section of the configuration; see :mod:`roost.support.settings`."""

from __future__ import annotations

import msgspec

__all__ = ["SECRET", "Section"]

SECRET = {"secret": True}
"""``Meta(extra=SECRET)``: listings show ``***``, and no process that runs user code sees it."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a section: immutable, every field with a default."""
