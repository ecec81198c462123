"""Which trigger classes may be made from a stored name: checked by name before any import."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection

from roost.dag.loader import LoadedFile
from roost.dag.trigger import BaseTrigger
from roost.exceptions import DagError

__all__ = ["entry_point_sources", "is_known", "resolve_trigger"]

ENTRY_POINT_GROUP = "roost.triggers"
_SOURCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_entry_points: frozenset[str] | None = None


def entry_point_sources() -> frozenset[str]:
    """Classes that installed packages offer in the entry-point group ``roost.triggers``."""
    global _entry_points
    if _entry_points is None:
        from importlib import metadata  # 40 modules that every task process would carry

        found = metadata.entry_points(group=ENTRY_POINT_GROUP)
        _entry_points = frozenset(point.value.replace(" ", "") for point in found)
    return _entry_points


def is_known(source: str, allowed: Collection[str]) -> bool:
    """Whether a class of this name may be imported. Imports nothing.

    Args:
        source: ``module:qualname``.
        allowed: the classes that the parsed DAG file listed.
    """
    if not _SOURCE.fullmatch(source):
        return False
    module = source.partition(":")[0]
    built_in = module == "roost.triggers" or module.startswith("roost.triggers.")
    return source in allowed or built_in or source in entry_point_sources()


def resolve_trigger(
    source: str, allowed: Collection[str], loaded: LoadedFile | None
) -> type[BaseTrigger]:
    """The trigger class of this name.

    Args:
        source: ``module:qualname``, from ``DeferSpec.source``.
        allowed: the classes that the parsed DAG file listed (``ParsedFile.triggers``).
        loaded: the DAG file of the task, when it is loaded in this process. Its classes are
            taken as they are; None for built-in triggers and those of entry points.

    Raises:
        DagError: the name is in no registry, or does not name a trigger class.
    """
    if not is_known(source, allowed):
        raise DagError(
            f"trigger {source!r} is in no registry: import it at the top level of the DAG file, "
            f"or offer it in the entry-point group {ENTRY_POINT_GROUP!r}"
        )
    if loaded is not None and source in loaded.triggers:
        return loaded.triggers[source]
    module, _, qualname = source.partition(":")
    try:
        target: object = importlib.import_module(module)
        for part in qualname.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise DagError(f"trigger {source!r} cannot be found: {error}") from error
    if not isinstance(target, type) or not issubclass(target, BaseTrigger):
        raise DagError(f"{source!r} is not a trigger class: it must subclass BaseTrigger")
    return target
