"""``start_from_trigger`` as authors write it: what is taken, and what is refused (D12)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from roost.dag import DAG
from roost.dag.loader import load_dag_file
from roost.dag.model import SerializedStart
from roost.dag.parse import parse_dag_file
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError
from roost.operators import BaseOperator, EmptyOperator
from roost.triggers import BaseTrigger, StartTriggerArgs


class Waits(BaseTrigger):
    def __init__(self, path: str) -> None:
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Waits", {"path": self.path})

    async def run(self) -> Any:
        yield


class Op(BaseOperator):
    def __init__(self, *, args: Any = None, starts: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_from_trigger = starts
        if args is not None:
            self.start_trigger_args = args

    def done(self, context: Any, event: Any) -> None: ...


def start_of(args: Any, **kwargs: Any) -> SerializedStart | None:
    with DAG("d", schedule=None) as dag:
        Op(task_id="t", args=args, **kwargs)
    return serialize_dag(dag).tasks[0].start


def test_what_the_scheduler_needs_is_in_the_serialized_dag_d12() -> None:
    args = StartTriggerArgs(
        f"{__name__}.Waits", "done", {"path": "/{{ ds }}"}, {"a": timedelta(1)}, 90, "skip"
    )
    start = start_of(args)
    assert start is not None
    assert (start.source, start.next_method) == (f"{__name__}:Waits", "done")
    assert start.kwargs == {"path": "/{{ ds }}"}
    assert start.next_kwargs["a"]["$roost"] == "timedelta"
    assert (start.timeout_us, start.on_timeout) == (90_000_000, "skip")
    assert start_of(args, starts=False) is None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (None, "needs start_trigger_args"),
        (StartTriggerArgs("no.such.Thing"), "no trigger class 'no.such.Thing'"),
        (StartTriggerArgs("Waits"), "write package.module.Class"),
        (StartTriggerArgs("roost.dag.DAG"), "is no trigger class"),
        (StartTriggerArgs(5), "must be a trigger class"),  # type: ignore[arg-type]
        (StartTriggerArgs(Waits, "nothing", {"path": ""}), "no method 'nothing'"),
        (StartTriggerArgs(Waits, "done", {"way": ""}), "do not fit Waits"),
        (StartTriggerArgs(Waits, "done", {"path": object()}), "path"),
        (StartTriggerArgs(Waits, "done", ["path"]), "must be a dict"),  # type: ignore[arg-type]
        (StartTriggerArgs(Waits, "done", {"path": ""}, timeout=-1), "timeout"),
        (StartTriggerArgs(Waits, "done", {"path": ""}, on_timeout="no"), "on_timeout"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_argument_is_the_files_error_d12(args: Any, words: str) -> None:
    with pytest.raises(DagError, match="task 't'") as caught:
        start_of(args)
    assert words in str(caught.value)


def test_the_result_of_a_task_is_asked_for_by_a_template_d12() -> None:
    with DAG("d", schedule=None) as dag:
        before = EmptyOperator(task_id="before")
        Op(task_id="t", args=StartTriggerArgs(Waits, "done", {"path": before.output}))
    with pytest.raises(DagError, match="write a template"):
        serialize_dag(dag)


def test_tasks_of_one_class_do_not_share_their_arguments_d12() -> None:
    class Each(Op):
        start_from_trigger = True
        start_trigger_args = StartTriggerArgs(Waits, "done", {})

        def __init__(self, *, path: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            assert self.start_trigger_args is not None
            self.start_trigger_args.trigger_kwargs = {"path": path}

    with DAG("d", schedule=None) as dag:
        for name in "ab":
            Each(task_id=name, path=name)
    starts = [task.start for task in serialize_dag(dag).tasks]
    assert [start.kwargs for start in starts if start] == [{"path": "a"}, {"path": "b"}]


def test_a_mapped_task_needs_them_on_its_class_d12() -> None:
    class Always(Op):
        start_from_trigger = True

    with DAG("d", schedule=None) as dag:
        Always.partial(task_id="t").expand(args=[1])
    with pytest.raises(DagError, match="on its class, since it is mapped"):
        serialize_dag(dag)


def test_an_operator_without_a_body_may_start_in_a_trigger_d12_h27() -> None:
    class Sleeps(EmptyOperator):
        start_from_trigger = True
        start_trigger_args = StartTriggerArgs(Waits, None, {"path": ""})

    with DAG("d", schedule=None) as dag:
        Sleeps(task_id="t")
    (task,) = serialize_dag(dag).tasks
    assert task.start is not None
    assert not task.empty


def test_a_class_that_only_its_name_tells_of_is_imported_and_hashed_d12(tmp_path: Path) -> None:
    """It is in the registry that is checked before import, its module is one of the helpers."""
    (tmp_path / "far_away.py").write_text(
        "from roost.triggers import BaseTrigger\n"
        "class Far(BaseTrigger):\n    serialize = run = None\n"
    )
    dag_file = tmp_path / "dags.py"
    dag_file.write_text(
        "from roost.dag import DAG\nfrom roost.operators import BaseOperator\n"
        "from roost.triggers import StartTriggerArgs\n"
        "class Op(BaseOperator):\n"
        "    start_from_trigger = True\n"
        "    start_trigger_args = StartTriggerArgs('far_away.Far')\n"
        "with DAG('d') as dag:\n    Op(task_id='t')\n"
    )
    parsed = parse_dag_file(str(dag_file), str(tmp_path))
    assert parsed.error is None
    assert "far_away:Far" in parsed.triggers
    assert parsed.helpers == ["far_away.py"]
    assert "far_away:Far" in load_dag_file(str(dag_file), parsed.source, str(tmp_path)).triggers


def test_a_class_is_named_as_its_author_writes_it_d12(tmp_path: Path) -> None:
    """As ``defer()`` names it, and not by the module that the loader makes of its file."""
    dag_file = tmp_path / "ha.py"
    dag_file.write_text(
        "from roost.dag import DAG\nfrom roost.operators import BaseOperator\n"
        "from roost.triggers import BaseTrigger, DateTimeTrigger, StartTriggerArgs\n"
        "class Flag(BaseTrigger):\n    serialize = run = None\n"
        "with DAG('d', schedule=None):\n"
        "    for kind in (Flag, DateTimeTrigger):\n"
        "        op = BaseOperator(task_id=kind.__name__)\n"
        "        op.start_from_trigger = True\n"
        "        kwargs = {'moment': '{{ ts }}'} if kind is DateTimeTrigger else {}\n"
        "        op.start_trigger_args = StartTriggerArgs(kind, None, kwargs)\n"
    )
    loaded = load_dag_file(str(dag_file), dag_file.read_text(), str(tmp_path))
    starts = [task.start for task in serialize_dag(loaded.dags["d"]).tasks]
    names = sorted(start.classpath for start in starts if start)
    assert names == ["ha.Flag", "roost.triggers.DateTimeTrigger"]
    assert all(start.source in loaded.triggers for start in starts if start)
