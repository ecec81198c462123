"""What a zygote imports once, so that no template and no task pays for it again."""

from __future__ import annotations

import importlib
import logging

__all__ = ["everything"]

# What every DAG file and every task body uses. Each module more makes each fork dearer (asyncio or
# jinja2: some 0.2 ms a task each), so what only some files need is left to their own templates.
_MODULES = (
    "roost.dag",
    "roost.dag.loader",
    "roost.dag.run",
    "roost.operators",
    "roost.support.typedjson",
    "roost.support.task_requests",
    "roost.support.wire",
)


def everything() -> None:
    """Import all of it."""
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            logging.getLogger("roost.worker").warning("cannot preload %s: %s", name, error)
