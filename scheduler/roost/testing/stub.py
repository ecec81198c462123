"""Stand-ins for what tasks do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from roost.exceptions import DagError, SkipTask

__all__ = ["Stub", "as_stub"]


@dataclass(frozen=True)
class Stub:
    """What a task does instead of its own body.

    Attributes:
        returns: its return value, kept as an XCom as usual.
        calls: called with the context instead of ``execute``; what it returns or raises counts.
        raises: an exception that the body raises; ``SkipTask`` skips, ``FailTask`` forbids a retry.
        times: only the first so many tries raise; None: all of them.
        takes: how long the body runs, on the simulation's clock.
        skips: direct children that a branch does not follow.
        xcoms: more values to keep, by key.
    """

    returns: Any = None
    calls: Callable[[dict[str, Any]], Any] | None = None
    raises: BaseException | type[BaseException] | None = None
    times: int | None = None
    takes: timedelta = timedelta(0)
    skips: Iterable[str] = ()
    xcoms: Mapping[str, Any] | None = None

    def run(self, context: dict[str, Any]) -> Any:
        """Be the body of a task.

        Raises:
            BaseException: what ``raises`` says.
        """
        ti = context["ti"]
        for key, value in (self.xcoms or {}).items():
            ti.xcom_push(key, value)
        ti.skip_downstream(self.skips)
        if self.raises is not None and (self.times is None or ti.try_number <= self.times):
            raise self.raises() if isinstance(self.raises, type) else self.raises
        return self.returns if self.calls is None else self.calls(context)


def as_stub(value: object, name: str) -> Stub:
    """A stub of what a user gave for a task: a stub, a function of the context, or a skip.

    Raises:
        DagError: it is none of these.
    """
    if isinstance(value, Stub):
        return value
    if isinstance(value, SkipTask) or value is SkipTask:
        return Stub(raises=value)
    if callable(value):
        return Stub(calls=value)
    raise DagError(
        f"stub for task {name!r} must be a Stub or a function of the context, not {value!r}; "
        f"write Stub(returns={value!r})"
    )
