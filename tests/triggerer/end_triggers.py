"""A DAG file whose tasks end in their triggers; read as text by the tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from roost.dag import DAG
from roost.operators import BaseOperator, PythonOperator
from roost.triggers import (
    BaseTrigger,
    TaskFailedEvent,
    TaskSkippedEvent,
    TaskSuccessEvent,
    TimeDeltaTrigger,
)

EVENTS = {"good": TaskSuccessEvent, "bad": TaskFailedEvent, "left": TaskSkippedEvent}


class Says(BaseTrigger):
    """Ends its task at once."""

    def __init__(self, word: str) -> None:
        self.word = word

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Says", {"word": self.word})

    async def run(self) -> Any:
        yield EVENTS[self.word](xcoms={"word": self.word}, reason=f"it was {self.word}")


class Ends(BaseOperator):
    """Defers and does not come back."""

    def __init__(self, *, word: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.word = word

    def execute(self, context: Any) -> None:
        trigger: BaseTrigger = Says(self.word)
        if self.word == "moment":
            trigger = TimeDeltaTrigger(timedelta(milliseconds=5), end_from_trigger=True)
        self.defer(trigger=trigger, method_name=None)


def told(ti: Any) -> list[Any]:
    """What the others left."""
    return list(ti.xcom_pull(task_ids=["good", "bad", "left", "moment"], key="word"))


with DAG("ends", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
    [Ends(task_id=word, word=word) for word in (*EVENTS, "moment")] >> PythonOperator(
        task_id="told", python_callable=told, trigger_rule="all_done"
    )
