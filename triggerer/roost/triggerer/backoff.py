"""How long a supervisor waits before it starts the next runner."""

from __future__ import annotations

__all__ = ["Backoff"]

# Seconds before the next runner, by how many have ended in a row before they had settled.
_BACKOFF_S = (0.0, 0.1, 0.5, 1.5)
# The same of those that ended before their loop turned: it is not a trigger that ends them, and
# each costs half a second of a CPU.
_UNREADY_BACKOFF_S = (0.0, 0.1, 0.5, 1.5, 3.0, 6.0, 12.0, 30.0)
_SETTLED_S = 30.0


class Backoff:
    """Counts runners that have ended soon after their start.

    Attributes:
        in_a_row: runners that have ended before they had settled.
        pause_s: before the next.
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self.pause_s = 0.0

    def ended(self, lived_s: float, ready: bool) -> None:
        """A runner has ended that was not asked to.

        Args:
            lived_s: so many seconds after its start.
            ready: its loop has turned.
        """
        if lived_s > _SETTLED_S:
            self.reset()
            return
        pauses = _BACKOFF_S if ready else _UNREADY_BACKOFF_S
        self.in_a_row += 1
        self.pause_s = pauses[min(self.in_a_row, len(pauses) - 1)]

    def reset(self) -> None:
        """Nothing is wrong: the next one is started at once."""
        self.in_a_row, self.pause_s = 0, 0.0

    def __str__(self) -> str:
        """What follows the end of a runner, in words."""
        if self.pause_s < 1:
            return "starting another"
        return f"time {self.in_a_row} in a row, starting another in {self.pause_s:g} s"
