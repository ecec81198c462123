"""The DAG files that the cases run; the same shapes as those that Airflow was measured with."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "chain",
    "count_waits",
    "defer",
    "fan",
    "mapped",
    "moments",
    "timeouts",
    "traced_chain",
    "waits",
]

_HEAD = """\
from roost.dag import DAG, task

WIDE = {{"max_active_tasks": 100_000, "max_active_runs": 100_000}}


@task(do_xcom_push=False)
def noop():
    return None


with DAG("{dag_id}", schedule=None, **WIDE):
"""

_CHAIN = """\
    before = None
    for number in range({size}):
        step = noop.override(task_id=f"t{{number}}")()
        if before is not None:
            before >> step
        before = step
"""

_FAN = """\
    for number in range({size}):
        noop.override(task_id=f"t{{number}}")()
"""

_MAPPED = """\

    @task(do_xcom_push=False)
    def take(number):
        return None

    noop.override(task_id="first")() >> take.expand(number=list(range({size}))) >> noop()
"""

# The body writes when it began and ended: the hop is what users see, not what the database says.
_TRACED = """\
import os
import time

from roost.dag import DAG, task


@task(do_xcom_push=False)
def step(number):
    began = time.time_ns()
    witness = os.open({witness!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(witness, f"{{number}} {{began}} {{time.time_ns()}}\\n".encode())
    os.close(witness)


with DAG("{dag_id}", schedule=None, max_active_runs=100_000):
    before = None
    for number in range({size}):
        here = step.override(task_id=f"t{{number}}")(number)
        if before is not None:
            before >> here
        before = here
"""

_DEFER = """\
import os
import time
from datetime import UTC, datetime

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import DateTimeTrigger


class WaitForMoment(BaseOperator):
    def execute(self, context):
        moment = datetime.fromtimestamp(context["dag_run"].conf["moment"], tz=UTC)
        self.defer(trigger=DateTimeTrigger(moment), method_name="resume")

    def resume(self, context, event=None):
        witness = os.open({witness!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(witness, f"{{time.time_ns()}}\\n".encode())
        os.close(witness)


with DAG("{dag_id}", schedule=None, max_active_tasks=100_000, max_active_runs=100_000):
    for number in range({size}):
        WaitForMoment(task_id=f"t{{number}}", do_xcom_push=False)
"""

_COUNT = """\
import asyncio
import os

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import BaseTrigger, TriggerEvent

STARTED = os.open({witness!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


class Forever(BaseTrigger):
    def __init__(self, number=0):
        self.number = number

    def serialize(self):
        return ("{dag_id}.Forever", {{"number": self.number}})

    async def run(self):
        os.write(STARTED, b".")
        while True:
            await asyncio.sleep(86_400)
        yield TriggerEvent()


class WaitForever(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Forever(), method_name="resume")

    def resume(self, context, event=None):
        return None


with DAG("{dag_id}", schedule=None):
    WaitForever(task_id="wait", do_xcom_push=False)
"""

_WAITS = """\
import asyncio

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import (
    AmqpTrigger, BaseTrigger, FileTrigger, ProcessTrigger, RedisStreamTrigger, TriggerEvent,
)


class Sleeps(BaseTrigger):
    def serialize(self):
        return ("{dag_id}.Sleeps", {{}})

    async def run(self):
        await asyncio.sleep(86_400)
        yield TriggerEvent()


class WaitInVain(BaseOperator):
    def execute(self, context):
        self.defer(trigger={trigger}, method_name="resume")

    def resume(self, context, event=None):
        return None


with DAG("{dag_id}", schedule=None):
    WaitInVain(task_id="wait", do_xcom_push=False)
"""

# Each kind's event says when it happened; the task that it wakes writes that beside its own clock.
_MOMENTS = """\
import asyncio
import os
import time
from datetime import UTC, datetime

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import BaseTrigger, DateTimeTrigger, ExternalTrigger, TriggerEvent


class Fires(BaseTrigger):
    def __init__(self, at):
        self.at = at

    def serialize(self):
        return ("{dag_id}.Fires", {{"at": self.at}})

    async def run(self):
        await asyncio.sleep(self.at - time.time())
        yield TriggerEvent(time.time())


class WaitForOne(BaseOperator):
    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context):
        conf = context["dag_run"].conf
        moment = conf["moment"] + conf["step"] * self.number
        if conf["kind"] == "timer":
            trigger = DateTimeTrigger(datetime.fromtimestamp(moment, tz=UTC))
        elif conf["kind"] == "poll":
            trigger = Fires(moment)
        else:
            trigger = ExternalTrigger(f"{{context['run_id']}}/{{self.number}}")
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context, event):
        here = time.time_ns()
        at = event.timestamp() if isinstance(event, datetime) else event
        witness = os.open({witness!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(witness, f"{{round(at * 1e9)}} {{here}}\\n".encode())
        os.close(witness)


with DAG("{dag_id}", schedule=None, max_active_tasks=100_000, max_active_runs=100_000):
    for number in range({size}):
        WaitForOne(task_id=f"t{{number}}", number=number, do_xcom_push=False)
"""

_TIMEOUTS = """\
import time
from datetime import UTC, datetime, timedelta

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import DateTimeTrigger

NEVER = datetime(2999, 1, 1, tzinfo=UTC)


class WaitInVain(BaseOperator):
    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context):
        conf = context["dag_run"].conf
        left = conf["moment"] + conf["step"] * self.number - time.time()
        timeout = timedelta(seconds=left)
        self.defer(trigger=DateTimeTrigger(NEVER), method_name="resume", timeout=timeout)

    def resume(self, context, event=None):
        return None


with DAG("{dag_id}", schedule=None, max_active_tasks=100_000, max_active_runs=100_000):
    for number in range({size}):
        WaitInVain(task_id=f"t{{number}}", number=number, do_xcom_push=False)
"""


def chain(dag_id: str, size: int) -> str:
    """``size`` no-op tasks, one after the other."""
    return (_HEAD + _CHAIN).format(dag_id=dag_id, size=size)


def fan(dag_id: str, size: int) -> str:
    """``size`` independent no-op tasks."""
    return (_HEAD + _FAN).format(dag_id=dag_id, size=size)


def mapped(dag_id: str, size: int) -> str:
    """A no-op task mapped over ``size`` literals, between two others."""
    return (_HEAD + _MAPPED).format(dag_id=dag_id, size=size)


def traced_chain(dag_id: str, size: int, witness: Path) -> str:
    """A chain whose tasks write ``number began ended`` (nanoseconds) to ``witness``."""
    return _TRACED.format(dag_id=dag_id, size=size, witness=str(witness))


def defer(dag_id: str, size: int, witness: Path) -> str:
    """Tasks that wait for ``conf["moment"]`` and then write when they were resumed."""
    return _DEFER.format(dag_id=dag_id, size=size, witness=str(witness))


def count_waits(dag_id: str, witness: Path) -> str:
    """One task that waits for ever in the poll lane; each start of its trigger writes a byte."""
    return _COUNT.format(dag_id=dag_id, witness=str(witness))


def waits(dag_id: str, trigger: str) -> str:
    """One task that defers to ``trigger``, an expression; ``Sleeps()`` is a sleep for a day."""
    return _WAITS.format(dag_id=dag_id, trigger=trigger)


def moments(dag_id: str, size: int, witness: Path) -> str:
    """Tasks that wait one after the other, in the lane ``conf["kind"]``, ``conf["step"]`` seconds
    apart from ``conf["moment"]``; each writes when its event happened and when it was resumed."""
    return _MOMENTS.format(dag_id=dag_id, size=size, witness=str(witness))


def timeouts(dag_id: str, size: int) -> str:
    """Tasks whose waits time out one after the other, ``conf["step"]`` seconds apart from
    ``conf["moment"]``; they fail."""
    return _TIMEOUTS.format(dag_id=dag_id, size=size)
