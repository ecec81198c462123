"""Hooks: how operators reach external systems (S45)."""

from roost.hooks.base import BaseHook

__all__ = ["BaseHook"]
