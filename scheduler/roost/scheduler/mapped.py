"""The board of a run with mapped tasks (H17).

A mapped task begins as one index of the plan, its *shell*. :meth:`MappedBoard.expand` replaces it
by instances, each with an index of its own behind those of the plan. From then on:

* what is above a shell and outside its group is counted once, on the shell, for all instances;
* what an instance of a group has above it inside the group is counted on the instance;
* each instance is a parent of what is below, inside its group only of the same ``map_index``.

Undecided instances lie in buckets by the counts that they do not share, so that a parent that ends
costs the number of different buckets, not of instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from roost.dag.rules import Verdict
from roost.models.states import FINISHED, State
from roost.scheduler.board import Board, Decisions
from roost.scheduler.instances import GrowingBoard, Inner, Instances, add
from roost.scheduler.plan import Plan, Unit

__all__ = ["EXPANDED", "MappedBoard", "open_board"]

EXPANDED = "expanded"
"""State of a shell on the board; its instances have the states."""

_NONE, _SCHEDULED, _SKIPPED = State.NONE, State.SCHEDULED, State.SKIPPED
_REMOVED, _UPSTREAM_FAILED = State.REMOVED, State.UPSTREAM_FAILED


def open_board(plan: Plan, instances: Iterable[tuple[int, str, int, str | None]]) -> Board:
    """The board of a run; see :class:`Board`."""
    return (MappedBoard if plan.mapped else Board)(plan, instances)


class MappedBoard(GrowingBoard):
    """A board on which mapped tasks can be expanded."""

    __slots__ = ("_checked", "_instances", "_stalled")

    def __init__(self, plan: Plan, instances: Iterable[tuple[int, str, int, str | None]]) -> None:
        self._instances: dict[int, Instances] = {}
        self._checked: set[Unit] = set()
        self._stalled: dict[int, set[int]] = {}
        super().__init__(plan, instances)

    def _fill(self, instances: Iterable[tuple[int, str, int, str | None]]) -> None:
        plain, found = [], list[tuple[int, int, int, str | None]]()
        for row in instances:
            index = self.plan.index.get(row[1])
            if row[2] == -1 or index not in self.plan.mapped:
                plain.append(row)
            else:
                found.append((index, row[2], row[0], row[3]))
        found.sort(key=lambda row: row[:2])
        grouped: dict[int, list[tuple[int, int]]] = {}
        for index, map_index, ti_id, _ in found:
            grouped.setdefault(index, []).append((map_index, ti_id))
        if grouped:
            # A row from before the task was expanded, or mapped at all, is none of its instances.
            names = {self.plan.tasks[index].task_id for index in grouped}
            self.unknown += [row[0] for row in plain if row[1] in names and row[2] == -1]
            plain = [row for row in plain if row[1] not in names or row[2] != -1]
            self._expand(grouped)
        super()._fill(plain)
        for _, _, ti_id, state in found:
            self.settle(self._index_of[ti_id], state)

    # -- what mapping asks and changes

    def expand(self, instances: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        """Replace undecided mapped tasks by their instances, all tasks of a group at once.

        Args:
            instances: ``(map_index, ti_id)`` of each, in order, by the index of the task.
        """
        self._expand(instances)
        for shell in instances:
            self.confirm(shell)

    def confirm(self, shell: int) -> None:
        """Say that a task has as many instances as it should: they may be decided."""
        self._checked.add(self.plan.mapped[shell])
        self._mark(shell)

    def instances(self, task: int) -> Sequence[int]:
        """The indices that stand for a task of the plan, by ``map_index`` once it is expanded."""
        found = self._instances.get(task)
        return (task,) if found is None else list(found.of.values())

    def expanded(self, task: int) -> bool:
        """Whether a mapped task of the plan has been replaced by its instances."""
        return task in self._instances

    def concerned(self, index: int, task: int) -> Sequence[int]:
        """The instances of a task that an instance means: in its group, those of its own
        ``map_index``; elsewhere all."""
        found = self._instances.get(task)
        if found is None:
            return (task,)
        if index >= self._size and self._beside(self.origin[index], task):
            mine = found.of.get(self.map_index(index))
            return () if mine is None else (mine,)
        return list(found.of.values())

    def parents_of(self, index: int) -> Sequence[int]:
        """The direct parents of an index."""
        above = self.plan.parents[self.origin[index]]
        return [one for parent in above for one in self.concerned(index, parent)]

    def blocked_upstreams(self, index: int) -> list[int]:
        """The unfinished parents, or those whose lengths it waits for, for which it waits."""
        unit = self.plan.mapped.get(self.origin[index])
        found = super().blocked_upstreams(index)
        if found or unit is None or self.states[index] != _NONE:
            return found
        over = [i for source in unit.sources for i in self.instances(source)]
        return [i for i in over if self.states[i] not in FINISHED]

    def undecided(self, task: int) -> Sequence[int]:
        """The instances of a task about which nothing is decided."""
        found = self._instances.get(task)
        if found is None:
            return super().undecided(task)
        return [index for bucket in found.undecided.values() for index in bucket]

    def _tallies(self, index: int) -> Inner:
        mine = super()._tallies(index)
        if index < self._size:
            return mine
        return add(mine, super()._tallies(self.origin[index]))

    def _expand(self, instances: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        for shell in sorted(instances):
            self._instances[shell] = Instances(
                {
                    map_index: self._append(shell, map_index, ti_id)
                    for map_index, ti_id in instances[shell]
                }
            )
        for shell in instances:
            self._link(shell)

    def _link(self, shell: int) -> None:
        """Let instances stand where their task stood: for its parents, and for its children."""
        block, plan = self._instances[shell], self.plan
        above = [p for p in plan.parents[shell] if self._beside(shell, p)]
        block.below = [c for c in plan.children[shell] if self._beside(shell, c)]
        outside = [c for c in plan.children[shell] if c not in block.below]
        more = len(block.of) - 1
        for child in outside:
            self._total[child] += more
        self._total[shell] -= len(above)
        for map_index, index in block.of.items():
            self._children[index] = outside
            self._total[index] = sum(map_index in self._instances[p].of for p in above)
            block.put(index, self._inner(index))
        self.states[shell] = EXPANDED
        self.ti_ids[shell] = -1
        self.unfinished += more
        self._undecided += more

    def _beside(self, shell: int, other: int) -> bool:
        """Whether two tasks are in one group and expanded: their instances go in pairs."""
        unit = self.plan.mapped.get(shell)
        return (
            other in self._instances
            and unit is not None
            and unit.group
            and self.plan.mapped[other] is unit
        )

    # -- what it does as Board does, for instances as well

    def settle(self, index: int, state: str | None) -> None:
        """Record a state, from and to any other, and mark what it concerns for examination."""
        if index >= self._size:
            new = _NONE if state is None else state
            old = self.states[index]
            if old == new:
                return
            block = self._instances[self.origin[index]]
            if old == _NONE:
                block.take(index, self._inner(index))
            elif new == _NONE:
                block.put(index, self._inner(index))
                # Cleared: if all of them are, what they are mapped over may be another now.
                self._checked.discard(self.plan.mapped[self.origin[index]])
        super().settle(index, state)

    def _mark(self, index: int) -> None:
        super()._mark(self.origin[index])

    def _tally(self, index: int, state: str, step: int) -> None:
        shell = self.origin[index]
        if self._stalled:
            for other in self._stalled.pop(shell, ()):
                self._mark(other)
        if index >= self._size:
            self._instances[shell].unfinished -= step
            if self._instances[shell].below:
                self._tally_inside(index, shell, state, step)
        super()._tally(index, state, step)

    def _tally_inside(self, index: int, shell: int, state: str, step: int) -> None:
        """Count a final state in or out of what has the same ``map_index`` in the group."""
        column = self._columns[state]
        for task in self._instances[shell].below:
            block = self._instances[task]
            child = block.of.get(self.map_index(index))
            if child is None:
                continue
            undecided = self.states[child] == _NONE
            if undecided:
                block.take(child, self._inner(child))
            column[child] += step
            if state == _UPSTREAM_FAILED:
                self._upstream_failed[child] += step
            if undecided:
                block.put(child, self._inner(child))
                self._mark(child)

    def _reconsider(self, index: int, verdict: Verdict, decisions: Decisions) -> Verdict:
        verdict = super()._reconsider(index, verdict, decisions)
        if verdict is not Verdict.RUN or index not in self.plan.mapped or index in self._held:
            return verdict
        self._ask(index, decisions)
        return Verdict.WAIT

    def _ask(self, shell: int, decisions: Decisions) -> None:
        """Ask for the lengths, once all that they are read from has ended."""
        sources = self.plan.mapped[shell].sources
        unfinished = [source for source in sources if not self._ended(source)]
        for source in unfinished:
            self._stalled.setdefault(source, set()).add(shell)
        if not unfinished:
            decisions.expand.append(shell)

    def _ended(self, task: int) -> bool:
        found = self._instances.get(task)
        return self.states[task] in FINISHED if found is None else not found.unfinished

    def _examine(self, index: int, decisions: Decisions) -> None:
        block = self._instances.get(index)
        if block is None or not block.undecided:
            return
        due = sorted(self._due(index, block))
        unit = self.plan.mapped[index]
        if unit not in self._checked and any(verdict == "run" for _, verdict in due):
            if self._untouched(unit):
                self._ask(index, decisions)
                return
            self._checked.add(unit)
        states = self.states
        for i, verdict in due:
            block.take(i, self._inner(i))
            self._undecided -= 1
            if verdict == "run":
                states[i] = _SCHEDULED
                decisions.run.append(i)
            elif verdict == "skip":
                states[i] = _SKIPPED
                decisions.skip.append(i)
                self._tally(i, _SKIPPED, 1)
            else:
                states[i] = _UPSTREAM_FAILED
                decisions.upstream_failed.append(i)
                self._tally(i, _UPSTREAM_FAILED, 1)

    def _due(self, shell: int, block: Instances) -> Iterator[tuple[int, str]]:
        """The undecided instances whose rule has spoken, and what it says."""
        rule, asks = self.plan.rules[shell], shell in self.plan.setups
        shared = self._inner(shell)
        for inner, bucket in block.undecided.items():
            total, success, failed, not_run, skipped, removed = add(shared, inner)
            verdict = rule(total - removed, success, failed, not_run, skipped)
            if verdict is Verdict.WAIT:
                continue
            for index in bucket:
                says = self.verdict(index) if asks else verdict
                if says is not Verdict.RUN or index not in self._held:
                    yield index, says.value

    def _untouched(self, unit: Unit) -> bool:
        """Whether nothing of what expanded has been decided: it may still change its length."""
        return all(
            self.states[index] in (_NONE, _REMOVED)
            for task in unit.members
            for index in self.instances(task)
        )

    def _inner(self, index: int) -> Inner:
        return super()._tallies(index)
