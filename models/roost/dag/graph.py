"""Order and cycles of a task graph, on ids alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

__all__ = ["find_cycle", "reachable", "topological_order"]

Edges = Mapping[str, Collection[str]]


def topological_order(downstream: Edges) -> list[str] | None:
    """The ids so that every edge points forward, or None when there is a cycle.

    Among those that are free at the same time, the order of ``downstream`` is kept.
    """
    waiting = dict.fromkeys(downstream, 0)
    for children in downstream.values():
        for child in children:
            waiting[child] += 1
    ready = deque(node for node, count in waiting.items() if count == 0)
    order: list[str] = []
    while ready:
        node = ready.popleft()
        order.append(node)
        for child in downstream[node]:
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    return order if len(order) == len(waiting) else None


def find_cycle(downstream: Edges) -> list[str]:
    """One cycle as ``[a, b, a]``, or an empty list. Iterative: chains may be very long."""
    done: set[str] = set()
    for start in downstream:
        path: list[str] = []
        on_path: dict[str, int] = {}
        stack = [(start, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                path.pop()
                del on_path[node]
                done.add(node)
            elif node in on_path:
                return [*path[on_path[node] :], node]
            elif node not in done:
                on_path[node] = len(path)
                path.append(node)
                stack.append((node, True))
                stack.extend((child, False) for child in downstream[node])
    return []


def reachable(downstream: Edges, starts: Iterable[str]) -> set[str]:
    """``starts`` and everything that can be reached from them."""
    seen = set(starts)
    stack = list(seen)
    while stack:
        for child in downstream[stack.pop()]:
            if child not in seen:
                seen.add(child)
                stack.append(child)
    return seen
