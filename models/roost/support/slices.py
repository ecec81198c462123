"""How much of a heap of work is taken at once: little at first, so that its first is soon done."""

from __future__ import annotations

__all__ = ["Slices"]


class Slices:
    """The size of the next slice: small after a pause, twice as large each time more was left.

    What is taken at once becomes true at once: of a thousand waits that end together the first
    would wait for all of them. A small slice is soon through, and while whoever is next works on
    it, larger ones follow. A heap costs ``log2(most / first)`` transactions more than without.

    Args:
        first: rows of the first slice.
        most: rows of the largest.
    """

    def __init__(self, first: int, most: int) -> None:
        self._first = first
        self._most = most
        self.size = first

    @property
    def at_first(self) -> bool:
        """Whether the next slice is a first one: there was a pause, or nothing yet."""
        return self.size == self._first

    def took(self, count: int, cut: bool = False) -> bool:
        """Note that the slice held ``count`` rows; True when there may be more.

        Args:
            count: how many it held.
            cut: it ended before its size, as what it held was large; the next one is no larger.
        """
        full = count >= self.size
        if full:
            self.size = min(2 * self.size, self._most)
        elif not cut:
            self.size = self._first
        return full or cut
