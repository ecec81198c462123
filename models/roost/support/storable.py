"""Texts of users in a form that every database can hold."""

from __future__ import annotations

__all__ = ["storable"]


def storable(text: str) -> str:
    """``text`` without NULs, which PostgreSQL refuses, and without halves of characters.

    For what is only shown: reasons, tracebacks, descriptions. Names are refused instead.
    """
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
