"""Priority weights: what a task weighs in the line for slots (S42-S44).

By default a task weighs its own ``priority_weight`` plus that of every task downstream of it,
each counted once, so that raising one task's weight raises all its ancestors'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from roost.dag.model import EdgeError, SerializedTask

__all__ = ["MAX_WEIGHT", "MIN_WEIGHT", "effective_weights"]

MAX_WEIGHT: Final = 2**31 - 1
MIN_WEIGHT: Final = -(2**31)


def effective_weights(tasks: Sequence[SerializedTask]) -> list[int]:
    """The effective weight of each task, in the order given.

    ``downstream``: own weight plus that of all distinct transitive downstream tasks;
    ``upstream``: the same of upstream tasks; ``absolute``: own weight; a strategy of the user's
    own: what it computed when the file was parsed. Held within 32 bits.

    Args:
        tasks: in topological order, edges checked.

    Raises:
        EdgeError: an edge names an unknown task or points backwards.
    """
    own = [_clamp(task.priority_weight) for task in tasks]
    weights = own[:]
    rules = {task.weight_rule for task in tasks}
    if rules <= {"absolute"}:
        return _with_strategies(tasks, weights)
    children = _edges(tasks)
    if "downstream" in rules:
        sums = _reach_sums(children, own)
        for i, task in enumerate(tasks):
            if task.weight_rule == "downstream":
                weights[i] = sums[i]
    if "upstream" in rules:
        # Upstream is downstream of the DAG turned round, whose topological order is reversed.
        last = len(tasks) - 1
        turned: list[list[int]] = [[] for _ in tasks]
        for parent, below in enumerate(children):
            for child in below:
                turned[last - child].append(last - parent)
        sums = _reach_sums(turned, own[::-1])
        for i, task in enumerate(tasks):
            if task.weight_rule == "upstream":
                weights[i] = sums[last - i]
    return _with_strategies(tasks, weights)


def _with_strategies(tasks: Sequence[SerializedTask], weights: Sequence[int]) -> list[int]:
    """What a strategy of the user's own has computed stands (H24)."""
    return [
        _clamp(weight if task.effective_weight is None else task.effective_weight)
        for task, weight in zip(tasks, weights, strict=True)
    ]


def _edges(tasks: Sequence[SerializedTask]) -> list[list[int]]:
    index = {task.task_id: i for i, task in enumerate(tasks)}
    try:
        children = [[index[child] for child in task.downstream] for task in tasks]
    except KeyError as error:
        raise EdgeError(f"an edge leads to {error}, which is not a task of the DAG") from None
    for i, below in enumerate(children):
        if below and min(below) <= i:
            raise EdgeError(f"an edge of {tasks[i].task_id!r} points backwards: there is a cycle")
    return children


def _reach_sums(children: Sequence[Sequence[int]], own: Sequence[int]) -> list[int]:
    """Own weight plus that of everything reachable, for nodes in topological order.

    Sets of nodes are the bits of integers, so 10,000 tasks that all reach each other take a
    second, not minutes. Weights are summed over such a set one binary digit at a time: one
    counting of bits per digit instead of one addition per task.
    """
    count = len(own)
    planes = _planes(own)
    uses = [0] * count  # how many parents have yet to read a node's set
    for below in children:
        for child in below:
            uses[child] += 1
    reach = [0] * count
    sums = list(own)
    # Node i is bit count-1-i: the sets of late nodes, of which there are many, stay short.
    for i in range(count - 1, -1, -1):
        if not children[i]:
            continue
        bits = 0
        for child in children[i]:
            bits |= reach[child] | (1 << (count - 1 - child))
            uses[child] -= 1
            if not uses[child]:
                reach[child] = 0
        reach[i] = bits
        sums[i] += sum(factor * (bits & plane).bit_count() for factor, plane in planes)
    return sums


def _planes(own: Sequence[int]) -> list[tuple[int, int]]:
    """The weights as (factor, set of nodes that have this binary digit)."""
    planes: dict[int, bytearray] = {}
    count = len(own)
    for i, weight in enumerate(own):
        rest, sign, digit = abs(weight), 1 if weight > 0 else -1, 1
        bit = count - 1 - i
        while rest:
            if rest & 1:
                plane = planes.setdefault(sign * digit, bytearray(count // 8 + 1))
                plane[bit >> 3] |= 1 << (bit & 7)
            rest >>= 1
            digit <<= 1
    return [(factor, int.from_bytes(plane, "little")) for factor, plane in planes.items()]


def _clamp(weight: int) -> int:
    return max(MIN_WEIGHT, min(MAX_WEIGHT, weight))
