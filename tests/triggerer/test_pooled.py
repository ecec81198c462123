"""Pooled triggers: one poll for many, and what becomes of each (D8, D14; invariant S3)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.dag.trigger import TriggerEvent
from roost.exceptions import RoostException
from roost.support import typedjson
from roost.support.trigger_wire import TriggerReport, TriggerSpec
from roost.triggerer.case import CURRENT, Case, live
from roost.triggerer.messages import Together
from roost.triggerer.pooled import GATHER_S, Pool
from roost.triggers import PooledTrigger
from tests.triggerer.virtual_loop import run_virtually


class Endpoint:
    """What the triggers below ask: it counts, and does as it is told."""

    def __init__(self) -> None:
        self.done: dict[str, Any] = {}
        self.polls: list[tuple[float, list[str]]] = []
        self.who: list[int] = []
        self.answer: Callable[[list[str]], Any] = self.tell

    def tell(self, keys: list[str]) -> Any:
        return {key: TriggerEvent(self.done[key]) for key in keys if key in self.done}

    @property
    def times(self) -> list[float]:
        return [round(at, 2) for at, _ in self.polls]


class Waits(PooledTrigger):
    """Asks the endpoint of its class."""

    endpoint: ClassVar[Endpoint]
    poll_retries = 3

    def __init__(
        self, key: str, group: str = "", interval: float = 5.0, longest: float | None = None
    ) -> None:
        self.key, self.group = key, group
        self.poll_interval = interval
        self.max_poll_interval = longest

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Waits", {})

    def poll_key(self) -> str:
        return self.key

    def poll_group(self) -> str:
        return self.group

    @classmethod
    async def poll_many(cls, triggers: Mapping[str, Self]) -> Any:
        end = cls.endpoint
        end.polls.append((asyncio.get_running_loop().time(), list(triggers)))
        end.who.append(CURRENT.get())
        found = end.answer(list(triggers))
        return await found if asyncio.iscoroutine(found) else found


class Hall:
    """A pool and the triggers in it, on a virtual loop."""

    def __init__(self, kind: type[Waits] = Waits) -> None:
        self.kind = kind
        self.reports: dict[int, TriggerReport] = {}
        self.left: list[int] = []
        self.cases: dict[int, Case] = {}
        self.together: list[Together] = []
        self.pool = Pool(
            self._report, lambda case: self.left.append(case.trigger_id), self.together.append
        )

    def _report(self, report: TriggerReport) -> None:
        assert report.trigger_id not in self.reports, "one report for each trigger"
        self.reports[report.trigger_id] = report

    def add(self, number: int, key: str = "", *args: Any, **kwargs: Any) -> None:
        spec = TriggerSpec(
            number, 7, "Waits", "m:Waits", msgspec.Raw(b"{}"), "h", "f", "d", "r", f"t{number}",
            -1, 1,
        )  # fmt: skip
        self.cases[number] = case = Case(spec, {})
        self.pool.take(case, self.kind(key or f"k{number}", *args, **kwargs))

    def waiting(self) -> set[int]:
        """Who has a seat."""
        groups = self.pool.groups.values()
        return {one for group in groups for seat in group._seats.values() for one in seat.cases}

    def drop(self, number: int) -> None:
        self.pool.drop(self.cases[number])

    def value(self, number: int) -> Any:
        report = self.reports[number]
        assert report.kind == "fired", report.error
        assert report.epoch == 7
        return typedjson.decode(report.payload)

    def error(self, number: int) -> str:
        report = self.reports[number]
        assert report.kind == "failed"
        return report.error or ""


@pytest.fixture(autouse=True)
def endpoint() -> Iterator[Endpoint]:
    Waits.endpoint = Endpoint()
    yield Waits.endpoint
    del Waits.endpoint


def test_many_triggers_are_one_poll(endpoint: Endpoint) -> None:
    """1,000 triggers of one endpoint make one request an interval, not 1,000."""

    async def main() -> None:
        hall = Hall()
        for number in range(1_000):
            hall.add(number)
        await asyncio.sleep(21)
        assert endpoint.times == [GATHER_S, 5.0, 10.0, 15.0, 20.0]
        assert all(len(keys) == 1_000 for _, keys in endpoint.polls)
        endpoint.done = {"k3": "three", "k999": None}
        await asyncio.sleep(5)
        assert (hall.value(3), hall.value(999)) == ("three", None)
        assert sorted(hall.left) == [3, 999]
        await asyncio.sleep(5)
        assert len(endpoint.polls[-1][1]) == 998  # what is not returned goes on waiting
        assert len(hall.reports) == 2
        assert hall.pool.counts() == (7, 0)

    run_virtually(main())


def test_equal_keys_are_asked_once(endpoint: Endpoint) -> None:
    async def main() -> None:
        hall = Hall()
        for number in range(100):
            hall.add(number, "same")
        endpoint.done = {"same": [1, 2]}
        await asyncio.sleep(1)
        assert endpoint.polls == [(GATHER_S, ["same"])]
        assert [hall.value(number) for number in range(100)] == [[1, 2]] * 100
        assert not hall.pool.groups

    run_virtually(main())


def test_groups_are_polled_apart(endpoint: Endpoint) -> None:
    """A class, whom it asks and its pace make a group; another version of the code is another."""

    class Other(Waits):
        pass

    async def main() -> None:
        hall = Hall()
        hall.add(1, "a", "east")
        hall.add(2, "b", "west")
        hall.add(3, "c", "east", interval=60.0)
        hall.kind = Other
        hall.add(4, "d", "east")
        await asyncio.sleep(1)
        assert sorted(keys for _, keys in endpoint.polls) == [["a"], ["b"], ["c"], ["d"]]

    run_virtually(main())


def test_who_joins_is_polled_at_once_and_then_with_the_others(endpoint: Endpoint) -> None:
    async def main() -> None:
        hall = Hall()
        hall.add(1)
        await asyncio.sleep(2)
        hall.add(2)
        hall.add(3)
        await asyncio.sleep(9)
        assert endpoint.polls == [
            (GATHER_S, ["k1"]),
            (2 + GATHER_S, ["k2", "k3"]),
            (5.0, ["k1", "k2", "k3"]),
            (10.0, ["k1", "k2", "k3"]),
        ]

    run_virtually(main())


def test_batches_and_the_rate(endpoint: Endpoint) -> None:
    """max_batch bounds a call, max_poll_rate the calls for one endpoint, whatever the paces."""

    class Slow(Waits):
        max_batch = 10
        max_poll_rate = 2.0

    async def main() -> None:
        hall = Hall(Slow)
        for number in range(25):
            hall.add(number, interval=5.0 + number % 2)
        await asyncio.sleep(60)
        assert max(len(keys) for _, keys in endpoint.polls) == 10
        times = [at for at, _ in endpoint.polls]
        assert min(b - a for a, b in pairwise(times)) > 0.499
        asked = Counter(key for _, keys in endpoint.polls for key in keys)
        assert set(asked) == {f"k{number}" for number in range(25)}
        assert min(asked.values()) >= 6  # nobody starves

    run_virtually(main())


def test_the_interval_grows_while_nothing_happens(endpoint: Endpoint) -> None:
    """Up to max_poll_interval, by a tenth of the quiet time; an event or a newcomer resets it."""

    async def main() -> None:
        hall = Hall()
        hall.add(1, interval=1.0, longest=60.0)
        hall.add(2, interval=1.0, longest=60.0)
        await asyncio.sleep(3600)
        first = len(endpoint.polls)
        assert first < 130  # 3,600 without
        gaps = [b - a for a, b in pairwise(endpoint.times)]
        assert max(gaps) <= 60.01
        assert gaps[5] == pytest.approx(1.0)
        endpoint.done = {"k1": 1}
        await asyncio.sleep(120)
        at = next(at for at, keys in endpoint.polls[first:] if "k1" in keys)
        after = [time for time in endpoint.times if time > at]
        assert after[0] - at == pytest.approx(1.0, abs=0.1)

    run_virtually(main())


def raises(error: BaseException) -> Callable[[list[str]], Any]:
    def answer(keys: list[str]) -> Any:
        raise error

    return answer


def test_a_passing_error_is_forgiven(endpoint: Endpoint) -> None:
    """D5: tried again with pauses that double, and nobody fails."""

    async def main() -> None:
        hall = Hall()
        hall.add(1)
        endpoint.answer = raises(OSError("the server is away"))
        await asyncio.sleep(20)
        assert endpoint.times == [GATHER_S, 5.0, 15.0]
        endpoint.answer, endpoint.done = endpoint.tell, {"k1": "back"}
        await asyncio.sleep(30)
        assert hall.value(1) == "back"
        assert hall.pool.counts() == (4, 3)

    run_virtually(main())


def test_only_errors_in_a_row_count(endpoint: Endpoint) -> None:
    """D5: every second poll fails, for hours: nobody is failed for that."""

    def answer(keys: list[str]) -> dict[str, Any]:
        if len(endpoint.polls) % 2:
            raise OSError("again")
        return endpoint.tell(keys)  # type: ignore[no-any-return]

    async def main() -> None:
        hall = Hall()
        hall.add(1)
        endpoint.answer = answer
        await asyncio.sleep(7200)
        assert not hall.reports
        endpoint.done = {"k1": "still there"}
        await asyncio.sleep(60)
        assert hall.value(1) == "still there"

    run_virtually(main())


def test_errors_without_end_fail_with_a_traceback(endpoint: Endpoint) -> None:
    """D5: poll_retries errors in a row are forgiven, the next one fails whom it was about."""

    async def main() -> None:
        hall = Hall()
        hall.add(1)
        hall.add(2)
        endpoint.answer = raises(OSError("the server is away"))
        await asyncio.sleep(40)
        assert len(endpoint.polls) == Waits.poll_retries + 1
        for number in (1, 2):
            error = hall.error(number)
            assert error.startswith("the poll failed 4 times in a row, the last time with\n")
            assert "in poll_many" in error
            assert error.endswith("OSError: the server is away")
        assert not hall.pool.groups

    run_virtually(main())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (raises(RoostException("The conn_id `x` isn't defined")), "The conn_id `x` isn't defined"),
        (raises(asyncio.CancelledError()), "cancelled itself"),
        (lambda keys: ["k1"], "poll_many() returned list; return a dict of events by key"),
        (lambda keys: None, "poll_many() returned NoneType"),
    ],
    ids=["ours", "cancels itself", "a list", "nothing"],
)
def test_what_is_no_passing_trouble_fails_at_once(
    endpoint: Endpoint, answer: Callable[[list[str]], Any], message: str
) -> None:
    """D5: a wrong return or an error of ours fails the triggers of that poll, in one go."""

    async def main() -> None:
        hall = Hall()
        hall.add(1)
        hall.add(2, "k2", "elsewhere")
        endpoint.answer = lambda keys: answer(keys) if "k1" in keys else {}
        await asyncio.sleep(1)
        assert message in hall.error(1)
        assert list(hall.reports) == [1]

    run_virtually(main())


def test_one_key_of_a_poll_fails_alone(endpoint: Endpoint) -> None:
    """D5: what is wrong with one answer is that trigger's trouble; unknown keys are nobody's."""

    async def main() -> None:
        hall = Hall()
        for number in range(1, 6):
            hall.add(number)

        def answer(keys: list[str]) -> dict[str, Any]:
            return {
                "k1": TriggerEvent(1),
                "k2": {"no": "event"},
                "k3": TriggerEvent(object()),
                "k4": OSError("that one is away"),
                "nobody": TriggerEvent(),
            }

        endpoint.answer = answer
        await asyncio.sleep(1)
        assert hall.value(1) == 1
        assert "poll_many() returned dict for 'k2'" in hall.error(2)
        assert "an event that cannot be stored" in hall.error(3)
        assert set(hall.reports) == {1, 2, 3}
        await asyncio.sleep(60)
        assert hall.error(4).endswith("OSError: that one is away")
        assert 5 not in hall.reports

    run_virtually(main())


def test_a_poll_that_hangs_has_a_time_out(endpoint: Endpoint) -> None:
    """It is an error as others; one that refuses to end is left behind, and its group goes on."""

    async def refuse() -> None:
        while True:
            try:
                await asyncio.sleep(10_000)
                return
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        hall = Hall()
        hall.add(1)
        endpoint.answer = lambda keys: refuse()
        await asyncio.sleep(40)
        endpoint.answer, endpoint.done = endpoint.tell, {"k1": "at last"}
        await asyncio.sleep(40)
        assert hall.value(1) == "at last"
        endpoint.answer = lambda keys: refuse()
        hall.add(2)
        await asyncio.sleep(500)
        assert "poll_many() took over 30 s" in hall.error(2)

    run_virtually(main())


def test_cancelling_one_leaves_the_batch_alone(endpoint: Endpoint) -> None:
    """One may go during a poll, even the one it is noted for; the last one ends the group."""

    async def slowly() -> dict[str, TriggerEvent]:
        await asyncio.sleep(1)
        return {f"k{number}": TriggerEvent(number) for number in (1, 2)}

    async def main() -> None:
        hall = Hall()
        for number in (1, 2, 3):
            hall.add(number)
        hall.add(4, "k2")
        endpoint.answer = lambda keys: slowly()
        await asyncio.sleep(0.5)
        assert endpoint.who == [1]
        hall.drop(1)
        hall.drop(1)  # again: nothing happens
        await asyncio.sleep(1)
        assert hall.value(2) == hall.value(4) == 2
        assert set(hall.reports) == {2, 4}
        hall.drop(3)
        assert not hall.pool.groups
        polls = len(endpoint.polls)
        await asyncio.sleep(60)
        assert len(endpoint.polls) == polls
        assert len(asyncio.all_tasks()) == 1

    run_virtually(main())


def test_who_is_polled_as_one_is_told_before(endpoint: Endpoint) -> None:
    """D5: a poll is noted for one trigger; the supervisor learns for whom else it is."""

    class Few(Waits):
        max_batch = 2

    async def main() -> None:
        hall = Hall()
        hall.add(1)
        await asyncio.sleep(7)
        assert not hall.together  # it stands for itself
        hall.add(2)
        hall.add(3, "k2")
        await asyncio.sleep(20)
        told = [(one.trigger_id, one.trigger_ids) for one in hall.together]
        assert told == [(2, [2, 3]), (1, [1, 2, 3])]  # once
        hall.drop(3)
        await asyncio.sleep(20)
        assert len(hall.together) == 2
        hall.drop(1)
        await asyncio.sleep(20)
        assert len(hall.together) == 2
        few = Hall(Few)
        for number in range(5):
            few.add(number)
        await asyncio.sleep(20)
        told = [(one.trigger_id, one.trigger_ids) for one in few.together]
        assert told == [(0, [0, 1]), (2, [2, 3])]

    run_virtually(main())


def test_a_trigger_that_cannot_join_is_told_why(endpoint: Endpoint) -> None:
    async def main() -> None:
        hall = Hall()
        with pytest.raises(RoostException, match=r"must give texts"):
            hall.add(1, 5)  # type: ignore[arg-type]
        with pytest.raises(RoostException, match="poll_interval must be seconds, not 0"):
            hall.add(2, interval=0)
        with pytest.raises(RoostException, match="poll_interval must be seconds, not 'x'"):
            hall.add(3, interval="x")
        assert not hall.pool.groups

    run_virtually(main())


def test_alone_it_runs_as_any_trigger(endpoint: Endpoint) -> None:
    """`dags test` and `roost.testing` have no pool: run() asks for the one trigger."""

    async def main() -> None:
        reports: list[TriggerReport] = []
        spec = TriggerSpec(
            1, 1, "Waits", "m:Waits", msgspec.Raw(b'{"key":"k"}'), "h", "f", "d", "r", "t", -1, 1
        )

        async def resolve(case: Case) -> type[Waits]:
            return Waits

        async with asyncio.TaskGroup() as group:
            group.create_task(live(Case(spec, {}), resolve, reports.append))
            await asyncio.sleep(7)
            endpoint.answer = raises(OSError("away"))
            await asyncio.sleep(5)
            endpoint.answer, endpoint.done = endpoint.tell, {"k": "now"}
        assert typedjson.decode(reports[0].payload) == "now"
        assert endpoint.times == [0.0, 5.0, 10.0, 20.0]
        endpoint.answer = raises(OSError("away"))
        await live(Case(spec, {}), resolve, reports.append)
        assert (reports[1].error or "").endswith("OSError: away")

    run_virtually(main())


# What happens in a hall: (seconds to pass, what, which trigger).
_STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.01, 0.2, 1.0, 7.0]),
        st.sampled_from(["add", "drop", "done", "error", "mend", "hang"]),
        st.integers(0, 9),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=_STEPS)
def test_every_trigger_is_reported_once_or_still_waits(steps: list[tuple[float, str, int]]) -> None:
    """Invariant S3: whatever joins, leaves, fails or hangs, each trigger has at most one report,
    is reported with its own value, and none is lost: it waits and is polled, or it has ended."""
    Waits.endpoint = endpoint = Endpoint()

    answers: dict[str, Callable[[list[str]], Any]] = {
        "error": raises(OSError("away")),
        "hang": lambda keys: asyncio.sleep(10_000),
        "mend": endpoint.tell,
    }

    async def main() -> None:
        hall = Hall()
        keys: dict[int, str] = {}
        dropped: set[int] = set()
        for seconds, what, which in steps:
            if what == "add":
                number = len(keys) + 1
                keys[number] = f"k{which}"
                hall.add(number, keys[number], interval=1.0 + which % 2)
            elif what == "drop":
                who = which + 1
                if who in hall.waiting():
                    dropped.add(who)
                    hall.drop(who)
            elif what == "done":
                endpoint.done[f"k{which}"] = which
            else:
                endpoint.answer = answers[what]
            await asyncio.sleep(seconds)
            assert hall.waiting() == set(keys) - dropped - set(hall.reports)
        endpoint.answer = endpoint.tell
        endpoint.done = {f"k{which}": which for which in range(10)}
        await asyncio.sleep(200)
        assert set(hall.reports) == set(keys) - dropped
        fired = [one for one, report in hall.reports.items() if report.kind == "fired"]
        assert [f"k{hall.value(one)}" for one in fired] == [keys[one] for one in fired]
        assert not hall.pool.groups

    run_virtually(main())
