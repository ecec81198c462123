"""What a zygote imports once, so that no template and no task pays for it again."""

from __future__ import annotations

import importlib
import logging

__all__ = ["everything"]

# What DAG files and task bodies use: the authoring API, templating, and the parts of the standard
# library that most operators import. A module that cannot be imported is somebody else's error to
# report, in the process that needs it.
_MODULES = (
    "roost.dag",
    "roost.dag.loader",
    "roost.dag.run",
    "roost.operators",
    "roost.sensors",
    "roost.hooks",
    "roost.triggers",
    "roost.support.typedjson",
    "roost.support.wire",
    "jinja2.sandbox",
    "datetime",
    "json",
    "random",
    "subprocess",
    "traceback",
    "zoneinfo",
)


def everything() -> None:
    """Import all of it."""
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            logging.getLogger("roost.worker").warning("cannot preload %s: %s", name, error)
