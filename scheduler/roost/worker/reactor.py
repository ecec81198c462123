"""Sockets and timers behind one epoll descriptor, for a core that has no event loop of its own."""

from __future__ import annotations

import heapq
import select
import socket
from collections.abc import Callable

from roost.support.osproc import boot_us

__all__ = ["Reactor", "Timer"]

_MAX_EVENTS = 256


class Timer:
    """A call to come. ``due_us`` is boot time in microseconds: a suspend does not stretch it."""

    __slots__ = ("action", "due_us", "order")

    def __init__(self, due_us: int, order: int, action: Callable[[], None]) -> None:
        self.due_us = due_us
        self.order = order
        self.action: Callable[[], None] | None = action

    def __lt__(self, other: Timer) -> bool:
        return (self.due_us, self.order) < (other.due_us, other.order)


class Reactor:
    """Calls handlers of readable sockets and of timers that are due, when it is told to."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._timers: list[Timer] = []
        self._cancelled = 0
        self._order = 0

    def fileno(self) -> int:
        """Readable when a watched socket is ready."""
        return self._epoll.fileno()

    @property
    def next_due_us(self) -> int | None:
        """Boot time of the first timer; None: there is none."""
        return self._timers[0].due_us if self._timers else None

    def watch(self, sock: socket.socket, handler: Callable[[], object]) -> None:
        """Call ``handler`` whenever the socket is readable, or closed by the other side."""
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock, select.EPOLLIN)

    def rewatch(self, sock: socket.socket, handler: Callable[[], object]) -> None:
        """Call another handler of a socket that is watched already."""
        self._handlers[sock.fileno()] = handler

    def want_writable(self, sock: socket.socket, wanted: bool) -> None:
        """Also call the handler when the socket takes more, or no longer."""
        self._epoll.modify(sock, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def close_socket(self, sock: socket.socket) -> None:
        """Stop watching a socket and close it, which takes it off epoll by itself."""
        self._handlers.pop(sock.fileno(), None)
        sock.close()

    def after(self, delay_us: int, action: Callable[[], None]) -> Timer:
        """Call ``action`` once, ``delay_us`` microseconds from now."""
        self._order += 1
        timer = Timer(boot_us() + max(0, delay_us), self._order, action)
        heapq.heappush(self._timers, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a timer. Costs nothing now; the heap is swept when half of it is cancelled."""
        if timer.action is None:
            return
        timer.action = None
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._timers):
            self._timers = [kept for kept in self._timers if kept.action is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def turn(self) -> None:
        """Handle what is ready and what is due; never waits."""
        for descriptor, _events in self._epoll.poll(0, _MAX_EVENTS):
            # An earlier handler of this turn may have closed it.
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler()
        if not self._timers:
            return
        now = boot_us()
        while self._timers and self._timers[0].due_us <= now:
            timer = heapq.heappop(self._timers)
            action, timer.action = timer.action, None
            if action is None:
                self._cancelled -= 1
            else:
                action()

    def close(self) -> None:
        """Close the epoll descriptor; the sockets are their owners'."""
        self._epoll.close()
