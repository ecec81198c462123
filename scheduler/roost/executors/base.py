"""The interface of executors, and how one is chosen by ``core.executor``.

The ``dispatch`` table is every executor's queue and its memory: the scheduler has committed a row
before :meth:`BaseExecutor.submit` hears of it, outcomes come back as rows, and a lost message
costs a poll interval. So an executor keeps no ``queued`` and ``running`` sets of its own (E3-E7,
E9, E10): what it holds is what the table says, after a crash of the scheduler too.
"""

from __future__ import annotations

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from sqlalchemy import Engine

from roost.exceptions import ConfigError
from roost.models.queries.handoffs import Handoff
from roost.support.config import Config
from roost.support.doorbell import Doorbell

__all__ = ["BaseExecutor", "load_executor"]

_BUILT_IN = {
    "local": "roost.executors.local:LocalExecutor",
    "sequential": "roost.executors.local:SequentialExecutor",
    "instant": "roost.executors.instant:InstantExecutor",
}
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class BaseExecutor(ABC):
    """Hands dispatches on. All methods are called by one scheduler, from one thread at a time.

    Args:
        config: the whole configuration.
        engine: the metadata database.
        bell: rings workers.

    Attributes:
        needs_worker: whether ``roost worker`` must run for tasks to start.
    """

    needs_worker: ClassVar[bool] = True

    def __init__(self, config: Config, engine: Engine, bell: Doorbell) -> None:
        self._config = config
        self._engine = engine
        self._bell = bell

    @property
    def parallelism(self) -> int:
        """Most task instances queued or running at once (E1)."""
        return self._config.core.parallelism

    def open_slots(self, in_flight: int) -> int:
        """How many more task instances may be handed over (E6)."""
        return max(0, self.parallelism - in_flight)

    def start(self) -> None:  # noqa: B027 - most have nothing to start
        """Called once, before the first :meth:`submit` (E2)."""

    @abstractmethod
    def submit(self, handoffs: Sequence[Handoff]) -> None:
        """Dispatches that have just been committed to the queue. Must not block (E11).

        It may raise nothing: what is not delivered now is found in the table later.
        """

    def end(self) -> None:  # noqa: B027 - most have nothing to end
        """The scheduler stops. Tasks go on: their outcomes wait in the table (E12, E13)."""


def load_executor(config: Config, engine: Engine, bell: Doorbell) -> BaseExecutor:
    """The executor that ``core.executor`` names: a built-in one, or ``package.module:Class``.

    Raises:
        ConfigError: there is no such executor, or it cannot be imported.
    """
    name = config.core.executor
    path = _BUILT_IN.get(name, name)
    if not _PATH.fullmatch(path):
        known = ", ".join(_BUILT_IN)
        raise ConfigError(
            f"core.executor = {name!r}: there is no such executor; give one of {known}, or an "
            "import path such as mypackage.executors:MyExecutor"
        )
    module, _, attribute = path.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"core.executor = {name!r} cannot be imported: {error}") from None
    if not (isinstance(kind, type) and issubclass(kind, BaseExecutor)):
        raise ConfigError(f"core.executor = {name!r} is not a subclass of BaseExecutor")
    return kind(config, engine, bell)
