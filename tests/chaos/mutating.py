"""What mutants are made of: how a guard is lost, and what a trial needs to find it out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from roost.models.engine import Sql

__all__ = ["Mutant", "cut", "queries"]


@dataclass(frozen=True)
class Mutant:
    """How a guard is lost, the rule that must find it out, and the trial that lets it.

    Attributes:
        kinds: of blows; empty: it shows where nothing is broken.
        aim: the daemons that all blows hit; empty: as in any trial.
        seconds: of load in the first trial; another one is longer.
        pause_s: bounds of the time between two blows.
        waits: whether waits of many seconds are part of the load.
    """

    apply: Callable[[], None]
    rule: str
    kinds: frozenset[str] = frozenset()
    aim: str = ""
    seconds: float = 15.0
    pause_s: tuple[float, float] = (1.0, 4.0)
    waits: bool = False


def cut(module: Any, name: str, old: str, new: str = "") -> None:
    """Change a named statement; the text must be there.

    Raises:
        ValueError: it is not: the mutant does not fit the code any more.
    """
    source = getattr(module, name).source
    if old not in source:
        raise ValueError(f"{name} does not hold {old!r}")
    setattr(module, name, Sql(source.replace(old, new)))


def queries(name: str) -> Any:
    """A module of :mod:`roost.models.queries`."""
    return importlib.import_module(f"roost.models.queries.{name}")
