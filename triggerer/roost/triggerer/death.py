"""The end of a runner that nobody had asked to end: what it was, and whose doing it may be."""

from __future__ import annotations

import signal
from typing import NamedTuple

from roost.support.osproc import describe_exit
from roost.triggerer.health import Health

__all__ = ["Death", "death_of"]

# So many short-lived runners in a row may be killed from outside before triggers are suspected.
_OUTSIDE = 4


class Death(NamedTuple):
    """How a runner has ended.

    Attributes:
        how: what became of it, in words.
        culprit: the trigger in whose step it ended, or which blocked it.
        importing: not a step of that trigger ended it, but the import of its code.
        suspicious: a trigger may have done it, though none was seen at it.
        sure: it was the culprit's doing. A signal can come from outside, or from a thread, and a
            thread can hold the GIL, in the middle of a step of somebody else.
        hung: it took a while to see.
        outside: a signal ended or stopped it, whoever sent that.
    """

    how: str
    culprit: int | None
    importing: bool
    suspicious: bool
    sure: bool = True
    hung: bool = False
    outside: bool = False


def death_of(health: Health, status: int, at_work: tuple[int, int], in_a_row: int) -> Death:
    """Judge the end of a runner by what was seen of it.

    Args:
        health: what was seen while it lived.
        status: its exit code, or the signal that ended it, negative.
        at_work: in whose step it ended, and in whose import; 0: in nobody's.
        in_a_row: so many have ended in a row before they had settled, with this one.
    """
    culprit, importing = (0, False) if health.swollen else _culprit(health, *at_work)
    how = health.fate or describe_exit(-status if status < 0 else status << 8)
    blocking = health.blocking
    seen_at_it = blocking is not None and blocking.trigger_id == culprit
    if health.fate and blocking is not None and seen_at_it and culprit:
        how += f", at {blocking.where}"
    ready, stopped = health.pulse.ready, health.pulse.stopped
    # SIGKILL comes from outside as a rule, for a full memory or by hand, and SIGSTOP.
    killed = status == -signal.SIGKILL and (not health.fate or stopped)
    signalled = stopped if health.fate else status < 0
    return Death(
        how,
        culprit or None,
        importing,
        # Before it is ready no trigger runs in it.
        suspicious=ready and (health.swollen or not killed or in_a_row > _OUTSIDE),
        sure=not signalled and (seen_at_it or not health.fate),
        hung=bool(health.fate) and not stopped,
        outside=ready and signalled,
    )


def _culprit(health: Health, step: int, importing: int) -> tuple[int, bool]:
    """Whose step, or else whose import, was executing when the runner ended; 0: nobody's."""
    blocking = 0 if health.blocking is None else health.blocking.trigger_id or 0
    in_import = health.blocking is not None and health.blocking.importing
    if health.fate and in_import and blocking == importing:
        step = 0  # it waited for the interpreter, which the import held
    elif not step and health.fate and not in_import:
        step = blocking
    return step or importing, not step and importing != 0
