"""Hooks: how operators reach external systems (S45)."""

from roost.hooks.base import BaseHook
from roost.hooks.http import HttpHook
from roost.hooks.sql import SqlHook

__all__ = ["BaseHook", "HttpHook", "SqlHook"]
