"""H17: the board of a run with mapped tasks and groups, and H18: with setups and teardowns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import get_args

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from roost.dag.model import (
    EdgeError,
    Length,
    SerializedDag,
    SerializedExpand,
    SerializedTask,
    SerializedTimetable,
    TriggerRule,
)
from roost.dag.rules import Counts, Verdict, evaluate
from roost.models.states import FINISHED, State
from roost.scheduler.mapped import MappedBoard, open_board
from roost.scheduler.plan import Plan

RULES: tuple[TriggerRule, ...] = get_args(TriggerRule)
NONE, SUCCESS, FAILED, SKIPPED = State.NONE, State.SUCCESS, State.FAILED, State.SKIPPED
Key = tuple[int, int]
Rows = dict[Key, str]
"""State by (index in the plan, map_index)."""


def over(*task_ids: str) -> SerializedExpand:
    return SerializedExpand([Length("xcom", task_id=task_id) for task_id in task_ids])


def task(task_id: str, downstream: str = "", **knobs: object) -> SerializedTask:
    return SerializedTask(task_id, "Op", downstream=downstream.split(), **knobs)  # type: ignore[arg-type]


def plan_of(*tasks: SerializedTask, **groups: SerializedExpand) -> Plan:
    dag = SerializedDag("d", SerializedTimetable("null"), list(tasks), mapped_groups=groups)
    return Plan.compile(dag)


class Case:
    """A board and what the rows of its run would be."""

    def __init__(self, plan: Plan, rows: Mapping[tuple[int, int], str] | None = None) -> None:
        self.plan = plan
        found = rows or {(i, -1): NONE for i in range(len(plan))}
        self.ids = itertools.count(1)
        self.place = {next(self.ids): key for key in found}
        self.board = open_board(
            plan,
            [(id_, plan.tasks[i].task_id, k, found[i, k]) for id_, (i, k) in self.place.items()],
        )

    def index(self, name: str) -> int:
        """`t` or `t.2`."""
        task_id, _, k = name.partition(".")
        key = (self.plan.index[task_id], int(k or -1))
        (ti_id,) = [id_ for id_, where in self.place.items() if where == key]
        found = self.board.index_of(ti_id)
        assert found is not None
        return found

    def settle(self, state: str, *names: str) -> None:
        for name in names:
            self.board.settle(self.index(name), state)

    def expand(self, shell: int, length: int) -> None:
        """What the scheduler does when the board asks for a length."""
        board, unit = self.board, self.plan.mapped[shell]
        assert isinstance(board, MappedBoard)
        if any(board.expanded(member) for member in unit.members):
            self.rebuild({**self.rows(), **self._instances([shell], length)}, drop=[shell])
            return
        members = [m for m in unit.members if board.states[m] == NONE]
        instances = {}
        for member in members:
            (old,) = [id_ for id_, key in self.place.items() if key == (member, -1)]
            del self.place[old]
            ids = [old, *(next(self.ids) for _ in range(length - 1))]
            self.place.update({id_: (member, k) for k, id_ in enumerate(ids)})
            instances[member] = list(enumerate(ids))
        board.expand(instances)

    @staticmethod
    def _instances(members: Sequence[int], length: int) -> Rows:
        return {(m, k): NONE for m in members for k in range(length)}

    def rebuild(self, rows: Rows, drop: Sequence[int]) -> None:
        rows = {key: state for key, state in rows.items() if key not in [(i, -1) for i in drop]}
        checked = [i for i in self.plan.mapped if self.checked(i)]
        self.__init__(self.plan, rows)  # type: ignore[misc]
        for shell in checked:
            self.board.confirm(shell)  # type: ignore[attr-defined]

    def checked(self, shell: int) -> bool:
        """Whether nobody need ask again how many instances a task has."""
        board = self.board
        return (
            isinstance(board, MappedBoard)
            and board.expanded(shell)
            and self.plan.mapped[shell] in board._checked
        )

    def rows(self) -> Rows:
        found = {}
        for ti_id, key in self.place.items():
            index = self.board.index_of(ti_id)
            assert index is not None
            found[key] = self.board.states[index]
        return found

    def decide(self) -> dict[str, str]:
        """Names by what was decided."""
        decisions = self.board.decide()
        names = {}
        for kind, indices in zip(decisions._fields, decisions, strict=True):
            if indices:
                names[kind] = " ".join(self.name(i) for i in indices)
        return names

    def name(self, index: int) -> str:
        task_id = self.board.tasks[index].task_id
        ti_id = self.board.ti_ids[index]
        k = self.place[ti_id][1]
        return task_id if k < 0 else f"{task_id}.{k}"


def test_h17_a_mapped_task_is_expanded_when_it_may_run() -> None:
    case = Case(plan_of(task("a", "m"), task("m", "z", expand=over("a")), task("z")))
    assert case.decide() == {"run": "a"}
    case.settle(SUCCESS, "a")
    assert case.decide() == {"expand": "m"}
    assert case.board.unfinished == 2
    assert case.decide() == {}, "until the length has been looked up"
    case.expand(1, 3)
    assert case.board.unfinished == 4
    assert case.decide() == {"run": "m.0 m.1 m.2"}
    case.settle(SUCCESS, "m.2", "m.0")
    assert case.decide() == {}, "z waits for each instance"
    case.settle(SUCCESS, "m.1")
    assert case.decide() == {"run": "z"}


def test_h17_rules_below_count_each_instance() -> None:
    below = [task(rule, trigger_rule=rule) for rule in RULES]
    plan = plan_of(task("m", " ".join(RULES), expand=SerializedExpand([])), *below)
    case = Case(plan)
    case.decide()
    case.expand(0, 3)
    case.decide()
    case.settle(SUCCESS, "m.1")
    assert case.decide() == {
        "run": "one_success one_done", "skip": "all_failed all_skipped",
    }  # fmt: skip
    case.settle(SKIPPED, "m.0")
    assert case.decide() == {"skip": "all_success none_skipped all_done_min_one_success"}
    case.settle(FAILED, "m.2")
    assert case.decide() == {
        "run": "all_done one_failed all_done_setup_success",
        "upstream_failed": "none_failed none_failed_min_one_success",
    }


def test_h17_a_mapped_task_that_may_not_run_is_decided_as_one() -> None:
    case = Case(plan_of(task("a", "m"), task("m", "z", expand=over("a")), task("z")))
    case.decide()
    case.settle(SKIPPED, "a")
    assert case.decide() == {"skip": "m z"}
    assert case.board.outcome() == "success"


def test_h17_a_rule_that_does_not_wait_still_waits_for_the_length() -> None:
    plan = plan_of(task("a", "m"), task("m", expand=over("a"), trigger_rule="always"))
    case = Case(plan)
    assert case.decide() == {"run": "a"}
    assert not case.board.deadlocked()
    case.settle(FAILED, "a")
    assert case.decide() == {"expand": "m"}


def test_h17_instances_of_a_group_go_in_pairs() -> None:
    plan = plan_of(
        task("out", "b"), task("a", "b", mapped_group="g"), task("b", "z", mapped_group="g"),
        task("z"), g=SerializedExpand([Length("literal", 2)]),
    )  # fmt: skip
    case = Case(plan)
    assert case.decide() == {"run": "out", "expand": "a"}
    case.expand(1, 2)
    assert case.decide() == {"run": "a.0 a.1"}
    case.settle(SUCCESS, "a.1", "out")
    assert case.decide() == {"run": "b.1"}, "b.0 waits for a.0 only"
    case.settle(FAILED, "a.0")
    case.settle(SUCCESS, "b.1")
    assert case.decide() == {"upstream_failed": "b.0 z"}
    assert case.board.concerned(case.index("a.1"), 2) == (case.index("b.1"),)
    assert case.board.concerned(case.index("out"), 2) == [case.index("b.0"), case.index("b.1")]


def test_h17_a_run_read_again_asks_whether_untouched_instances_are_still_as_many() -> None:
    plan = plan_of(task("a", "m"), task("m", expand=over("a")))
    rows: Rows = {(0, -1): SUCCESS, (1, 0): NONE, (1, 1): NONE}
    case = Case(plan, rows)
    assert case.board.decide().expand == [1]
    assert case.decide() == {}
    case.board.confirm(1)  # type: ignore[attr-defined]
    assert case.decide() == {"run": "m.0 m.1"}
    touched = Case(plan, {**rows, (1, 0): SUCCESS})
    assert touched.decide() == {"run": "m.1"}


def test_h17_instances_that_are_all_cleared_are_asked_about_again() -> None:
    case = Case(plan_of(task("m", expand=SerializedExpand([]))))
    case.decide()
    case.expand(0, 2)
    assert case.decide() == {"run": "m.0 m.1"}
    case.settle(SUCCESS, "m.0", "m.1")
    case.settle(NONE, "m.0")
    assert case.decide() == {"run": "m.0"}, "m.1 has not been cleared"
    case.settle(NONE, "m.0", "m.1")
    assert case.board.decide().expand == [0]


def test_h17_rows_that_are_none_of_its_instances_are_unknown() -> None:
    plan = plan_of(task("a"), task("m", expand=over("a")))
    rows = [(1, "a", -1, SUCCESS), (2, "a", 0, NONE), (3, "m", -1, NONE), (4, "m", 0, NONE)]
    board = open_board(plan, rows)
    assert sorted(board.unknown) == [2, 3]
    assert board.missing == []
    assert board.unfinished == 1


def test_h17_a_plan_refuses_a_length_of_no_task() -> None:
    with pytest.raises(EdgeError, match="unknown task 'x'"):
        plan_of(task("m", expand=over("x")))
    with pytest.raises(EdgeError, match="over itself"):
        plan_of(task("m", expand=over("m")))
    with pytest.raises(EdgeError, match="no mapped group 'g'"):
        plan_of(task("m", mapped_group="g"))


def test_h18_a_teardown_follows_its_setup_and_does_not_decide_the_run() -> None:
    plan = plan_of(
        task("s", "w t", setup=True), task("w", "t"),
        task("t", teardown=True, trigger_rule="all_done_setup_success"),
    )  # fmt: skip
    case = Case(plan)
    case.decide()
    case.settle(SUCCESS, "s")
    case.decide()
    case.settle(SUCCESS, "w")
    assert case.decide() == {"run": "t"}
    case.settle(FAILED, "t")
    assert case.board.outcome() == "success"
    case.settle(FAILED, "w")
    assert case.board.outcome() == "failed", "w is the leaf"


@pytest.mark.parametrize(
    ("setup", "work", "teardown"),
    [
        (FAILED, "upstream_failed", "upstream_failed"),
        (SKIPPED, "skipped", "skipped"),
        (SUCCESS, None, None),
    ],
)
def test_h18_without_its_setup_a_teardown_does_not_run(
    setup: str, work: str | None, teardown: str | None
) -> None:
    plan = plan_of(
        task("s", "w t", setup=True), task("w", "t"),
        task("t", teardown=True, trigger_rule="all_done_setup_success"),
    )  # fmt: skip
    case = Case(plan)
    case.decide()
    case.settle(setup, "s")
    case.decide()
    if work is None:
        case.settle(FAILED, "w")
        assert case.decide() == {"run": "t"}, "a failed task is torn down, too"
    else:
        assert case.rows() == {(0, -1): setup, (1, -1): work, (2, -1): teardown}


def test_h17_h18_each_instance_of_a_teardown_follows_its_own_setup() -> None:
    rule: TriggerRule = "all_done_setup_success"
    plan = plan_of(
        task("s", "t", setup=True, mapped_group="g"),
        task("t", teardown=True, trigger_rule=rule, mapped_group="g"),
        g=SerializedExpand([]),
    )
    case = Case(plan)
    assert case.decide() == {"expand": "s"}
    case.expand(0, 3)
    assert case.decide() == {"run": "s.0 s.1 s.2"}
    case.settle(SUCCESS, "s.0")
    case.settle(FAILED, "s.1")
    case.settle(SKIPPED, "s.2")
    assert case.decide() == {"run": "t.0", "skip": "t.2", "upstream_failed": "t.1"}


def test_h18_a_teardown_decides_the_run_where_it_is_told_to() -> None:
    plan = plan_of(
        task("w", "t"),
        task("t", teardown=True, trigger_rule="all_done", on_failure_fail_dagrun=True),
    )
    assert Case(plan, {(0, -1): SUCCESS, (1, -1): FAILED}).board.outcome() == "failed"
    assert Case(plan, {(0, -1): FAILED, (1, -1): SUCCESS}).board.outcome() == "success"


# --- a board kept up to date decides what one built anew, and plain reading of the rows, decide


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 7))
    below = [[c for c in range(i + 1, size) if draw(st.booleans())] for i in range(size)]
    tasks = []
    first = size  # of the group
    for i in range(size):
        kind = draw(st.sampled_from(["plain", "plain", "mapped", "group"]))
        role = draw(st.sampled_from(["work", "work", "setup", "teardown"]))
        knobs: dict[str, object] = {"trigger_rule": draw(st.sampled_from(RULES))}
        if kind == "mapped":
            knobs["expand"] = over(*draw(before(i)))
        elif kind == "group":
            knobs["mapped_group"] = "g"
            first = min(i, first)
        if role == "setup":
            knobs["setup"] = True
        elif role == "teardown":
            knobs |= {"teardown": True, "trigger_rule": "all_done_setup_success"}
        tasks.append(task(str(i), " ".join(map(str, below[i])), **knobs))
    return plan_of(*tasks, g=over(*draw(before(first))))


def before(i: int) -> st.SearchStrategy[list[str]]:
    """A few tasks before one, whether or not they are its parents."""
    return st.lists(st.sampled_from([str(p) for p in range(i)]), max_size=2) if i else st.just([])


def above(plan: Plan, rows: Rows, i: int, k: int) -> list[tuple[int, str]]:
    """The parents of an instance, and their states."""
    found = []
    for p in plan.parents[i]:
        of_p = {key: state for key, state in rows.items() if key[0] == p}
        unit = plan.mapped.get(i)
        paired = unit is not None and unit.group and unit is plan.mapped.get(p)
        if paired and k >= 0 and (p, -1) not in of_p:
            of_p = {key: state for key, state in of_p.items() if key[1] == k}
        found += [(p, state) for state in of_p.values()]
    return found


def says(plan: Plan, rows: Rows, i: int, k: int) -> Verdict:
    parents = above(plan, rows, i, k)
    ended = [state for _, state in parents]
    setups = [s for p, s in parents if plan.tasks[p].setup and s != "removed"]
    kinds = ("success", "failed", "upstream_failed", "skipped", "removed")
    counts = Counts(len(ended), *(ended.count(kind) for kind in kinds))
    if plan.tasks[i].trigger_rule == "all_done_setup_success":
        counts = counts._replace(
            setups=len(setups),
            setup_success=setups.count("success"),
            setup_skipped=setups.count("skipped"),
        )
    return evaluate(plan.tasks[i].trigger_rule, counts)


def may_run(plan: Plan, rows: Rows, held: set[Key], i: int) -> bool:
    """Whether the rule lets an undecided instance of a task run."""
    mine = [key for key in rows if key[0] == i and rows[key] == NONE and key not in held]
    return any(says(plan, rows, *key) is Verdict.RUN for key in mine)


def untouched(plan: Plan, rows: Rows, i: int) -> bool:
    """Whether of what expands with a task nothing is decided: there may be more or fewer today."""
    unit = [state for key, state in rows.items() if key[0] in plan.mapped[i].members]
    return all(state in (NONE, "removed") for state in unit)


def from_scratch(plan: Plan, rows: Rows, held: set[Key], checked: set[int]) -> dict[str, set[Key]]:
    """What the rules say, read off the rows alone, parents before children."""

    def known(i: int) -> bool:
        return all(s in FINISHED for (p, _), s in rows.items() if p in plan.mapped[i].sources)

    rows, decided = dict(rows), dict[str, set[Key]]()
    asked = set[int]()
    for i, k in sorted(rows):
        first = k == min(j for task, j in rows if task == i) >= 0
        if first and i not in checked and may_run(plan, rows, held, i):
            if untouched(plan, rows, i):
                asked.add(i)
                decided.setdefault("expand", set()).update({(i, -1)} if known(i) else ())
            else:
                checked |= {*plan.mapped[i].members}
        if i in asked:
            continue
        verdict = says(plan, rows, i, k)
        if rows[i, k] != NONE or verdict is Verdict.WAIT:
            continue
        if verdict is Verdict.RUN and (i, k) in held:
            continue
        kind, state = verdict.value, verdict.value
        if verdict is Verdict.RUN and k == -1 and i in plan.mapped:
            if not known(i):
                continue
            kind, state = "expand", NONE
        decided.setdefault(kind, set()).add((i, k))
        rows[i, k] = {"run": "scheduled", "skip": "skipped"}.get(state, state)
    return decided


def compare(case: Case, fresh: Case) -> None:
    board, other, rows = case.board, fresh.board, case.rows()
    assert rows == fresh.rows()
    assert board.unfinished == other.unfinished == sum(s not in FINISHED for s in rows.values())
    assert board.outcome() == other.outcome()
    if board.unfinished == 0:
        leaves = {i for i, counts in enumerate(case.plan.decisive) if counts}
        bad = any(s in ("failed", "upstream_failed") for (i, _), s in rows.items() if i in leaves)
        assert board.outcome() == ("failed" if bad else "success")
    for i, k in rows:
        name = f"{i}.{k}" if k >= 0 else f"{i}"
        mine, its = case.index(name), fresh.index(name)
        assert board.counts(mine) == other.counts(its)
        assert board.verdict(mine) is says(case.plan, rows, i, k)


def rebuilt(case: Case) -> Case:
    """The same run, read again; what it need not be asked again has been said."""
    fresh = Case(case.plan, case.rows())
    for shell in case.plan.mapped:
        if case.checked(shell):
            fresh.board.confirm(shell)  # type: ignore[attr-defined]
    return fresh


def keyed(case: Case, decisions: Sequence[Sequence[int]]) -> dict[str, set[Key]]:
    kinds = ("run", "skip", "upstream_failed", "expand")
    return {
        kind: {case.place.get(case.board.ti_ids[i], (i, -1)) for i in indices}
        for kind, indices in zip(kinds, decisions, strict=True)
        if indices
    }


@settings(max_examples=300, deadline=None)
@given(plans(), st.data())
def test_h17_any_interleaving_decides_what_a_fresh_look_would(
    plan: Plan, data: st.DataObject
) -> None:
    case, held = Case(plan), set[Key]()
    for _ in range(data.draw(st.integers(1, 14))):
        rows = case.rows()
        action = data.draw(
            st.sampled_from(["settle", "settle", "decide", "decide", "skip", "hold"])
        )
        event(action)
        some = st.sampled_from(sorted(rows))
        if action == "settle":
            i, k = data.draw(some)
            name = f"{i}.{k}" if k >= 0 else f"{i}"
            case.settle(data.draw(st.sampled_from(list(State))), name)
        elif action == "skip":
            names = [f"{i}.{k}" if k >= 0 else f"{i}" for i, k in data.draw(st.lists(some))]
            case.board.force_skip([case.index(name) for name in names])
        elif action == "hold":
            held = set(data.draw(st.lists(some)))
            hold(case, held)
        else:
            fresh = rebuilt(case)
            held &= set(rows)
            hold(case, held)
            hold(fresh, held)
            checked = {i for i in plan.mapped if case.checked(i)}
            want = from_scratch(plan, rows, held, checked)
            decided = case.board.decide()
            its = fresh.board.decide()
            assert keyed(fresh, its) == want
            # What was asked before and not answered is not asked again.
            got = keyed(case, decided)
            assert got.get("expand", set()) <= want.get("expand", set())
            assert {**got, "expand": 0} == {**want, "expand": 0}
            for shell in decided.expand:
                if case.board.expanded(shell):
                    case.board.confirm(shell)  # type: ignore[attr-defined]
                elif case.board.states[shell] == NONE and not case.board.expanded(shell):
                    length = data.draw(st.integers(0, 3))
                    event(f"length {length}")
                    if length:
                        case.expand(shell, length)
                    else:
                        case.board.settle(shell, SKIPPED)
        compare(case, rebuilt(case))


def hold(case: Case, held: set[Key]) -> None:
    names = [f"{i}.{k}" if k >= 0 else f"{i}" for i, k in held if (i, k) in case.rows()]
    case.board.set_held([case.index(name) for name in names])


@settings(max_examples=100, deadline=None)
@given(plans(), st.data())
def test_h17_a_run_always_ends(plan: Plan, data: st.DataObject) -> None:
    case = Case(plan)
    while True:
        decisions = case.board.decide()
        for shell in decisions.expand:
            if case.board.states[shell] == NONE and not case.board.expanded(shell):
                case.expand(shell, data.draw(st.integers(1, 3)))
        if decisions.expand:
            continue
        live = sorted(key for key, state in case.rows().items() if state not in FINISHED)
        if not live:
            break
        assert not case.board.deadlocked()
        started = [key for key in live if case.rows()[key] != NONE]
        i, k = data.draw(st.sampled_from(started))
        name = f"{i}.{k}" if k >= 0 else f"{i}"
        case.settle(data.draw(st.sampled_from(["success", "failed", "skipped"])), name)
    assert case.board.outcome() is not None
