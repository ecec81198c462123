"""What the end of a runner says of its triggers, by what was seen of it before (D5, D20)."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from roost.triggerer.backoff import Backoff
from roost.triggerer.death import Death, death_of
from roost.triggerer.health import Health
from roost.triggerer.messages import Blocked

KILL = -signal.SIGKILL
HUNG = "was killed because it was silent for 5 s"


def health(
    fate: str = "", *, ready: bool = True, stopped: bool = False, swollen: bool = False
) -> Health:
    one = Health(0)
    one.fate, one.swollen = fate, swollen
    one.pulse.ready, one.pulse.stopped = ready, stopped
    return one


def blocked(trigger_id: int, **more: Any) -> Blocked:
    return Blocked(trigger_id, "", "a.py:1 in run", 9_000_000, **more)


def judge(seen: Health, status: int, step: int = 0, importing: int = 0, in_a_row: int = 1) -> Death:
    return death_of(seen, status, (step, importing), in_a_row)


def test_an_exit_is_whose_step_it_was() -> None:
    """D20: or whose import; the runner noted it before the code was executed."""
    death = judge(health(), 7, step=3, importing=4)
    assert death == Death("exited with code 7", 3, importing=False, suspicious=True)
    assert judge(health(), 7, importing=4)[1:3] == (4, True)
    assert judge(health(), 7)[1:3] == (None, False)


def test_a_signal_is_no_proof() -> None:
    """D20: it may come from outside; SIGKILL makes nobody a suspect until it comes again."""
    crash = judge(health(), -signal.SIGSEGV, step=3)
    assert (crash.culprit, crash.sure, crash.suspicious, crash.outside) == (3, False, True, True)
    assert not judge(health(), KILL, step=3).suspicious
    assert judge(health(), KILL, step=3, in_a_row=5).suspicious


def test_who_hangs_is_who_blocks() -> None:
    """D20: seen at it, with the line; also where the step was another's for want of the GIL."""
    seen = health(HUNG)
    seen.noted(blocked(3))
    death = judge(seen, KILL)
    assert death == Death(f"{HUNG}, at a.py:1 in run", 3, False, True, sure=True, hung=True)
    importing = health(HUNG)
    importing.held(blocked(4, importing=True, held=True))
    death = judge(importing, KILL, step=3, importing=4)
    assert (death.culprit, death.importing, death.sure) == (4, True, True)
    unseen = judge(health(HUNG), KILL, step=3)
    assert (unseen.how, unseen.culprit, unseen.sure) == (HUNG, 3, False)


def test_who_was_at_work_has_not_swollen_or_stopped_a_runner() -> None:
    """D20: memory is nobody's step; SIGSTOP comes from outside as a rule."""
    swollen = judge(health("was killed because it had grown", swollen=True), KILL, step=3)
    assert (swollen.culprit, swollen.suspicious, swollen.sure) == (None, True, False)
    stopped = judge(health("was killed because it was stopped", stopped=True), KILL, step=3)
    assert (stopped.suspicious, stopped.sure, stopped.hung, stopped.outside) == (
        False, False, False, True,
    )  # fmt: skip


def test_no_trigger_runs_in_a_runner_that_is_not_ready() -> None:
    """D20: its end is no suspicion, whatever ended it."""
    death = judge(health(ready=False), 1, in_a_row=9)
    assert (death.suspicious, death.outside) == (False, False)


def test_a_block_is_told_of_once() -> None:
    """D20: the watchdog learns late of what the supervisor has seen, and knows no line then."""
    seen = health()
    seen.held(blocked(3, held=True))
    assert seen.was_told(3, importing=False) and not seen.was_told(3, importing=True)
    late = Blocked(3, "", "a call that kept the interpreter to itself", 9_000_000)
    assert not seen.noted(late) and late.where == "a.py:1 in run"
    over = blocked(3, over=True)
    assert seen.noted(over) and seen.blocking is None
    assert seen.noted(blocked(3)) and not seen.was_told(3, importing=False)


@pytest.mark.parametrize(("ready", "longest"), [(True, 1.5), (False, 30.0)])
def test_runners_that_end_early_are_started_ever_more_slowly(ready: bool, longest: float) -> None:
    """D20: what ends at its start costs a CPU; one that had settled is replaced at once."""
    backoff = Backoff()
    pauses = []
    for _ in range(9):
        backoff.ended(0.5, ready)
        pauses.append(backoff.pause_s)
    assert pauses == sorted(pauses) and pauses[-1] == longest
    assert str(backoff) == f"time 9 in a row, starting another in {longest:g} s"
    backoff.ended(31.0, ready)
    assert (backoff.in_a_row, backoff.pause_s, str(backoff)) == (0, 0.0, "starting another")
