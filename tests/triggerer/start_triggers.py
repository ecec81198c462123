"""A DAG file whose tasks start in their triggers; read as text by the tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from roost.dag import DAG, Param
from roost.operators import BaseOperator, PythonOperator
from roost.triggers import (
    BaseTrigger,
    StartTriggerArgs,
    TaskSuccessEvent,
    TriggerEvent,
)


class Tells(BaseTrigger):
    """Fires with what it was made of, or ends its task with it."""

    def __init__(self, *, ends: bool = False, **told: Any) -> None:
        self.ends, self.told = ends, told

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Tells", {"ends": self.ends, **self.told})

    async def run(self) -> Any:
        yield TaskSuccessEvent(xcoms={"told": self.told}) if self.ends else TriggerEvent(self.told)


class Starts(BaseOperator):
    """Says itself what its trigger is made of."""

    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(Tells, "done", {"where": "{{ ds }}"}, {"more": 1})

    def __init__(self, *, trigger_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = kwargs.get("params", {}).get("number")
        if trigger_kwargs is not None:
            self.start_trigger_args.trigger_kwargs = trigger_kwargs

    def done(self, context: Any, event: Any, more: int) -> Any:
        return {"event": event, "more": more, "try": context["ti"].try_number}


class Ends(Starts):
    """Sees no worker at all."""

    start_trigger_args = StartTriggerArgs(f"{__name__}.Tells")


class AtMoment(Starts):
    """Waits as a row."""

    start_trigger_args = StartTriggerArgs(
        "roost.triggers.DateTimeTrigger",
        "done",
        {"moment": "{{ logical_date + macros.timedelta(milliseconds=params.after) }}"},
        {"more": 2},
    )


class AtEvent(Starts):
    """Waits for somebody's word."""

    start_trigger_args = StartTriggerArgs("roost.triggers.ExternalTrigger", "done", {}, {"more": 3})


ASKED = {
    "conf": "{{ dag_run.conf.get('x', 'none') }}",
    "ids": ["{{ run_id }}", "{{ ti.task_id }}", "{{ task.task_id }}", "{{ dag.dag_id }}"],
    "var": "{{ var.value.get('city', 'nowhere') }}",
    "pulled": "{{ ti.xcom_pull(task_ids='before') }}",
    "plain": 5,
    "macro": "{{ shout('x') }}",
}

with DAG(
    "starts",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    params={"after": Param(5)},
    user_defined_macros={"shout": str.upper},
) as dag:
    before = PythonOperator(task_id="before", python_callable=lambda: "left")
    before >> [
        Starts(task_id="fires"),
        Starts(task_id="asks", trigger_kwargs=ASKED),
        Ends(task_id="ends", trigger_kwargs={"ends": True, "ds": "{{ ds }}"}),
        AtMoment(task_id="moment"),
        AtEvent(task_id="event", trigger_kwargs={"key": "starts/{{ ds }}"}),
        Starts(task_id="wrong", trigger_kwargs={"x": "{{ nothing.at.all }}"}),
        Starts.partial(task_id="mapped").expand(
            trigger_kwargs=[{"n": "{{ ti.map_index }}"}, {"n": "{{ ds_nodash }}"}]
        ),
    ]
