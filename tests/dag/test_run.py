"""Running one dispatch: outcomes, deferral, time limits (S55, D1-D7)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roost.dag.deferral import TaskDeferred, make_defer_spec, timer_payload
from roost.dag.operator import BaseOperator
from roost.dag.run import run_task
from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import DagError, FailTask, SkipTask, TaskTimeout, ValueNotStorable
from roost.support import typedjson
from roost.support.clock import to_us
from roost.support.task_requests import Reply, Request
from roost.support.wire import TRIGGER_TIMEOUT
from roost.triggers import DateTimeTrigger, FileTrigger, TimeDeltaTrigger
from tests.dag.case import FakeSupervisor, a_dag, load_text, probe, raw, run, spec_for


def ends(error: BaseException | None) -> Any:
    def body(context: dict[str, Any]) -> None:
        if error is not None:
            raise error

    return run(probe("t", body, dag=a_dag()))[0]


def test_success_measures_itself() -> None:
    outcome = ends(None)
    assert (outcome.kind, outcome.error, outcome.skip) == ("success", None, [])
    assert outcome.run_us >= 0
    assert outcome.started_at <= outcome.ended_at


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (ValueError("x"), "failed", True),
        (FailTask("enough"), "failed", False),
        (SkipTask("not today"), "skipped", True),
        (SystemExit(0), "success", True),
        (SystemExit(None), "success", True),
        (SystemExit(2), "failed", True),
        (KeyboardInterrupt(), "failed", True),
        (RecursionError(), "failed", True),
    ],
)
def test_every_way_out_becomes_an_outcome(error: BaseException, kind: str, retryable: bool) -> None:
    outcome = ends(error)
    assert (outcome.kind, outcome.retryable) == (kind, retryable)
    assert (outcome.error is not None) == (kind == "failed")


def test_the_traceback_begins_in_the_tasks_code() -> None:
    lines = (ends(ValueError("a thing")).error or "").splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "tests/dag/case.py" in lines[1]  # where the probe's execute() is
    assert lines[-1] == "ValueError: a thing"


def test_a_traceback_fits_any_database() -> None:
    error = ends(ValueError("nul \0 surrogate \ud800 " + "x" * 200_000)).error or ""
    assert "\0" not in error
    assert len(error.encode()) < 60_000
    assert "characters left out" in error


def test_order_of_the_methods() -> None:
    called: list[str] = []

    class Ordered(BaseOperator):
        def pre_execute(self, context: dict[str, Any]) -> None:
            called.append("pre")

        def execute(self, context: dict[str, Any]) -> int:
            called.append("execute")
            return 5

        def post_execute(self, context: dict[str, Any], result: Any = None) -> None:
            called.append(f"post {result}")

    run(Ordered(task_id="t", dag=a_dag()))
    assert called == ["pre", "execute", "post 5"]


class Counted(BaseOperator):
    """Counts its runs in itself, and has a slot beside its attributes."""

    __slots__ = ("slot",)
    slot: int

    def execute(self, context: dict[str, Any]) -> Any:
        self.slot += 1
        self.runs = getattr(self, "runs", 0) + 1
        return [self.slot, self.runs]


class CopiesItself(BaseOperator):
    mark = "original"

    def __copy__(self) -> CopiesItself:
        made: CopiesItself = object.__new__(type(self))
        vars(made).update(vars(self), mark="copied its own way")
        return made

    def execute(self, context: dict[str, Any]) -> Any:
        return self.mark


class Plain(BaseOperator):
    def execute(self, context: dict[str, Any]) -> Any:
        self.label += "!"
        return [self.label, context["task"] is self]


def test_a_run_changes_a_copy_of_its_task() -> None:
    task = Plain(task_id="t", dag=a_dag())
    for _ in range(2):
        assert run(task)[1] == {"return_value": ["t!", True]}
    assert task.label == "t"


def test_a_task_with_slots_is_copied_with_them() -> None:
    task = Counted(task_id="t", dag=a_dag())
    task.slot = 6
    for _ in range(2):
        assert run(task)[1] == {"return_value": [7, 1]}


def test_a_task_that_says_how_to_copy_it_is_obeyed() -> None:
    task = CopiesItself(task_id="t", dag=a_dag())
    assert run(task)[1] == {"return_value": "copied its own way"}


class Job(BaseTrigger):
    """Names itself as a class in a DAG file may."""

    path = "mypkg.Job"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (self.path, {"job_id": self.job_id})

    async def run(self) -> Any:
        yield TriggerEvent(self.job_id)


class Waits(BaseOperator):
    """Defers once, then returns the event."""

    trigger: BaseTrigger = Job("j")
    method = "execute_complete"

    def execute(self, context: dict[str, Any]) -> None:
        try:
            self.defer(trigger=self.trigger, method_name=self.method, kwargs={"n": 1}, timeout=7200)
        except Exception:  # D1: must not swallow the deferral
            raise AssertionError from None

    def execute_complete(self, context: dict[str, Any], event: Any, n: int) -> Any:
        return [event, n, context["ti"].task_id]


def waits(trigger: BaseTrigger, method: str = "execute_complete") -> Waits:
    task = Waits(task_id="w", dag=a_dag())
    task.trigger, task.method = trigger, method
    return task


def test_d1_d2_a_deferral_is_stored_whole() -> None:
    outcome, values = run(waits(Job("j1")))
    assert (outcome.kind, outcome.error, values) == ("deferred", None, {})
    assert outcome.defer is not None
    spec = outcome.defer
    assert (spec.lane, spec.classpath, spec.source) == ("poll", "mypkg.Job", f"{__name__}:Job")
    assert typedjson.decode(spec.kwargs) == {"job_id": "j1"}
    assert (spec.next_method, typedjson.decode(spec.next_kwargs)) == ("execute_complete", {"n": 1})
    assert (spec.timeout_us, spec.due_at) == (7_200_000_000, None)


@pytest.mark.parametrize("path", ["Job", "x.Job", f"{__name__}.Job", f"{__name__}:Job", "a.b.C"])
def test_the_source_is_true_whatever_serialize_says(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "path", path)
    outcome, _ = run(waits(Job("j")))
    assert outcome.defer is not None
    assert outcome.defer.source == f"{__name__}:Job"
    assert outcome.defer.classpath == path


def test_timers_take_the_timer_lane() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    outcome, _ = run(waits(DateTimeTrigger(moment)))
    assert outcome.defer is not None
    assert (outcome.defer.lane, outcome.defer.due_at) == ("timer", to_us(moment))
    assert typedjson.decode(timer_payload(to_us(moment))) == moment


def test_a_delta_is_stored_as_the_moment_it_amounts_to() -> None:
    trigger = TimeDeltaTrigger(timedelta(hours=1))
    outcome, _ = run(waits(trigger))
    assert outcome.defer is not None
    assert outcome.defer.source == "roost.triggers.temporal:DateTimeTrigger"
    assert typedjson.decode(outcome.defer.kwargs) == {"moment": trigger.moment}


def test_d3_the_event_comes_back_as_an_argument() -> None:
    kwargs = raw({"n": 1, "event": {"rows": 42}})
    outcome, values = run(waits(Job("j")), next_method="execute_complete", next_kwargs=kwargs)
    assert outcome.error is None
    assert values == {"return_value": [{"rows": 42}, 1, "w"]}


def test_a_task_may_defer_again_when_it_comes_back() -> None:
    class Twice(Waits):
        def execute_complete(self, context: dict[str, Any], event: Any, n: int) -> Any:
            self.defer(trigger=Job(f"j{n}"), method_name="last")

        def last(self, context: dict[str, Any], event: Any) -> Any:
            return event

    task = Twice(task_id="w", dag=a_dag())
    outcome, _ = run(task, next_method="execute_complete", next_kwargs=raw({"n": 2, "event": 0}))
    assert outcome.kind == "deferred"
    assert outcome.defer is not None
    assert typedjson.decode(outcome.defer.kwargs) == {"job_id": "j2"}


def test_d5_d6_a_failed_wait_is_raised_where_the_task_comes_back() -> None:
    def error(text: str) -> str:
        task = waits(Job("j"))
        outcome, _ = run(task, next_method="execute_complete", trigger_error=text)
        assert outcome.kind == "failed"
        return (outcome.error or "").splitlines()[-1]

    assert error("boom") == "roost.exceptions.TriggerFailed: boom"
    assert error(f"{TRIGGER_TIMEOUT}: 5 s").startswith("roost.exceptions.DeferralTimeout: ")


def test_a_method_that_does_not_exist_is_refused() -> None:
    outcome, _ = run(waits(Job("j"), method="nothing"))
    assert "no method 'nothing' to come back to" in (outcome.error or "")
    outcome, _ = run(waits(Job("j")), next_method="gone", next_kwargs=raw({}))
    assert "deferred to method 'gone', which Waits does not have" in (outcome.error or "")


def test_a_trigger_that_could_not_be_made_again_is_refused() -> None:
    class Local(Job): ...

    class Fewer(Job):
        def serialize(self) -> Any:
            return ("Job", {})

    class Odd(Job):
        def serialize(self) -> Any:
            return "Job"

    class Unstorable(Job):
        def serialize(self) -> Any:
            return ("Job", {"job_id": object()})

    def store(trigger: BaseTrigger) -> None:
        make_defer_spec(TaskDeferred(trigger=trigger, method_name="m"))

    Local.path = "Local"
    with pytest.raises(DagError, match="inside a function"):
        store(Local("j"))
    with pytest.raises(DagError, match=r"do not fit its __init__.*job_id"):
        store(Fewer("j"))
    with pytest.raises(DagError, match="must return"):
        store(Odd("j"))
    with pytest.raises(ValueNotStorable, match="trigger kwargs"):
        store(Unstorable("j"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"trigger": "x", "method_name": "m"},
        {"trigger": Job, "method_name": "m"},
        {"trigger": Job("j"), "method_name": ""},
        {"trigger": Job("j"), "method_name": "m", "timeout": "1h"},
    ],
)
def test_wrong_arguments_of_defer(arguments: Any) -> None:
    with pytest.raises(DagError, match="defer: "):
        TaskDeferred(**arguments)


def test_an_unknown_trigger_class_is_refused_when_it_defers(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, "from roost.dag import DAG\nd = DAG('d')\n")
    task = waits(Job("j"))
    loaded.dags["d"].task_dict["w"] = task
    loaded.triggers.clear()
    outcome = run_task(spec_for(task), loaded, FakeSupervisor())
    assert "was not known when the DAG file was parsed" in (outcome.error or "")
    task.trigger = FileTrigger("/x")  # one of our own is always known
    assert run_task(spec_for(task), loaded, FakeSupervisor()).kind == "deferred"


def test_a_task_that_the_file_does_not_hold(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, "from roost.dag import DAG\nd = DAG('d')\n")
    outcome = run_task(spec_for(waits(Job("j"))), loaded, FakeSupervisor())
    assert outcome.kind == "failed"
    assert "holds no task 'w' of DAG 'd'" in (outcome.error or "")


def test_outcomes_cross_the_wire() -> None:
    outcome, _ = run(waits(Job("j")))
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=type(outcome)).kind == "deferred"


class Sleeps(BaseOperator):
    """Waits for a signal that never comes."""

    killed = 0

    def execute(self, context: dict[str, Any]) -> Any:
        time.sleep(60)

    def on_kill(self) -> None:
        type(self).killed += 1
        raise RuntimeError("on_kill() may fail, too")


def test_d7_execution_timeout_ends_the_task_and_calls_on_kill() -> None:
    Sleeps.killed = 0
    outcome, _ = run(Sleeps(task_id="t", dag=a_dag()), execution_timeout_us=50_000)
    assert (outcome.kind, outcome.retryable, Sleeps.killed) == ("failed", True, 1)
    assert "TaskTimeout: the task ran longer than its execution_timeout (0.05 s)" in (
        outcome.error or ""
    )


def test_d7_time_spent_before_the_wait_counts() -> None:
    outcome, _ = run(
        waits(Job("j")),
        execution_timeout_us=5_000_000,
        run_us=5_000_001,
        next_method="execute_complete",
        next_kwargs=raw({"event": 1, "n": 1}),
    )
    assert "TaskTimeout" in (outcome.error or "")
    outcome, _ = run(
        waits(Job("j")),
        execution_timeout_us=60_000_000,
        run_us=1_000_000,
        next_method="execute_complete",
        next_kwargs=raw({"event": 1, "n": 1}),
    )
    assert outcome.kind == "success"


def test_d7_a_swallowed_timeout_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.dag.interrupt._AGAIN_S", 0.05)
    caught: list[TaskTimeout] = []
    Sleeps.killed = 0

    class Stubborn(Sleeps):
        def execute(self, context: dict[str, Any]) -> None:
            try:
                time.sleep(60)
            except TaskTimeout as error:
                caught.append(error)
            time.sleep(60)

    outcome, _ = run(Stubborn(task_id="t", dag=a_dag()), execution_timeout_us=20_000)
    assert len(caught) == 1
    assert Stubborn.killed == 1
    assert "TaskTimeout" in (outcome.error or "")


def test_handlers_and_timers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)
    limit = signal.getitimer(signal.ITIMER_REAL)[0]
    run(probe("t", lambda c: None, dag=a_dag()), execution_timeout_us=60_000_000)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)) == before
    # The time limit of this test itself runs on.
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (limit > 0)


def test_sigterm_stops_the_task_even_in_a_bare_handler() -> None:
    Sleeps.killed = 0

    class Stubborn(Sleeps):
        def execute(self, context: dict[str, Any]) -> None:
            while True:
                with contextlib.suppress(Exception):
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(60)

    outcome, _ = run(Stubborn(task_id="t", dag=a_dag()))
    assert outcome.kind == "failed"
    assert "told to stop (SIGTERM)" in (outcome.error or "")
    assert Stubborn.killed == 1


class SlowSupervisor(FakeSupervisor):
    """Is interrupted in the middle of each request."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.number = number
        self.answered = 0

    def call(self, request: Request) -> Reply:
        os.kill(os.getpid(), self.number)
        time.sleep(0.03)
        self.answered += 1
        return super().call(request)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM])
def test_a_request_is_never_cut_in_two(number: signal.Signals) -> None:
    supervisor = SlowSupervisor(number)

    def ask_and_sleep(context: dict[str, Any]) -> None:
        context["ti"].xcom_pull("a")
        time.sleep(60)

    outcome, _ = run(probe("t", ask_and_sleep, dag=a_dag()), supervisor)
    assert supervisor.answered == 1
    assert outcome.kind == "failed"
    assert ("SIGTERM" in (outcome.error or "")) == (number == signal.SIGTERM)


def test_a_child_that_the_task_forks_can_be_terminated() -> None:
    Sleeps.killed = 0

    class Forks(Sleeps):
        def execute(self, context: dict[str, Any]) -> Any:
            ready, say = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.write(say, b"x")
                    time.sleep(60)
                finally:
                    os._exit(7)
            os.read(ready, 1)  # a signal during the fork itself would be lost
            os.close(ready)
            os.close(say)
            os.kill(pid, signal.SIGTERM)
            return os.waitpid(pid, 0)[1]

    assert run(Forks(task_id="t", dag=a_dag()))[1] == {"return_value": signal.SIGTERM}
    assert Forks.killed == 0
