"""H17: what one instance of a mapped task gets, and what others see of it (S56, S57)."""

from __future__ import annotations

from typing import Any

from roost.dag import XComArg, get_current_context, task, task_group
from roost.dag.operator import BaseOperator
from roost.exceptions import SkipTask
from roost.operators import PythonOperator
from roost.support.task_requests import XComPull
from tests.dag.case import FakeSupervisor, a_dag, raw, run


@task
def pair(x: Any = None, y: Any = None) -> Any:
    return [x, y]


@task
def make() -> Any: ...


def the(arg: Any) -> BaseOperator:
    assert isinstance(arg, XComArg)
    return arg.operator


def left(**values: Any) -> FakeSupervisor:
    supervisor = FakeSupervisor()
    supervisor.xcoms = {(name, "return_value"): raw(value) for name, value in values.items()}
    return supervisor


def instances(mapped: Any, count: int, supervisor: FakeSupervisor | None = None) -> list[Any]:
    found = []
    for index in range(count):
        outcome, values = run(the(mapped), supervisor, map_index=index)
        assert outcome.error is None, outcome.error
        found.append(values.get("return_value", outcome.kind))
    return found


def test_h17_literals_by_index_with_their_constants() -> None:
    with a_dag():
        mapped = pair.partial(y="c").expand(x=["a", "{{ ti.map_index }}"])
    assert instances(mapped, 2) == [["a", "c"], ["1", "c"]]


def test_h17_a_product_goes_row_by_row() -> None:
    with a_dag():
        mapped = pair.expand(x=[1, 2], y=("a", "b", "c"))
    assert instances(mapped, 6) == [[1, "a"], [1, "b"], [1, "c"], [2, "a"], [2, "b"], [2, "c"]]


def test_h17_a_dict_gives_its_items() -> None:
    with a_dag():
        mapped = pair.expand(x={"k": 1, "l": 2})
        pulled = pair.override(task_id="pulled").expand(x=make())
    assert instances(mapped, 2) == [[("k", 1), None], [("l", 2), None]]
    assert instances(pulled, 2, left(make={"k": 1, "l": 2})) == [[("k", 1), None], [("l", 2), None]]


def test_h17_an_instance_asks_for_its_own_element_only() -> None:
    with a_dag():
        mapped = pair.expand(x=make())
    supervisor = left(make=["a", "b"])
    assert instances(mapped, 2, supervisor) == [["a", None], ["b", None]]
    asked = [request for request in supervisor.asked if isinstance(request, XComPull)]
    assert [request.element for request in asked] == [0, 1]


def test_h17_a_product_over_results_knows_their_lengths() -> None:
    with a_dag():
        mapped = pair.expand(x=make(), y=make.override(task_id="other")())
    supervisor = left(make=["a", "b"], other=[1, 2, 3])
    assert instances(mapped, 6, supervisor)[3:5] == [["b", 1], ["b", 2]]


def test_h17_a_value_of_an_xcom_is_no_template() -> None:
    with a_dag():
        made = make()
        mapped = pair.partial(y="{{ run_id }}").expand(x=made)
        named = pair.override(task_id="named").expand_kwargs(made)
    hostile = "{{ var.value.secret }}"
    (one,) = instances(mapped, 1, left(make=[hostile]))
    assert one == [hostile, "scheduled__2026-01-31"]
    assert instances(named, 1, left(make=[{"x": hostile}])) == [[hostile, None]]


def test_h17_kwargs_from_literals_and_results() -> None:
    with a_dag():
        literal = pair.partial(y=0).expand_kwargs([{"x": 1}, {"x": "{{ ds }}"}])
        pulled = pair.override(task_id="pulled").expand_kwargs(make())
    assert instances(literal, 2) == [[1, 0], ["2026-01-31", 0]]
    assert instances(pulled, 2, left(make=[{"x": 1, "y": 2}, {}])) == [[1, 2], [None, None]]
    outcome, _ = run(the(pulled), left(make=[5]), map_index=0)
    assert outcome.error is not None
    assert "expand_kwargs() needs dicts with str keys, not 5" in outcome.error


def test_h17_classic_operators_are_made_in_the_task_process() -> None:
    class Doubles(BaseOperator):
        template_fields = ("text",)

        def __init__(self, *, text: str, times: int = 2, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.text, self.times = text, times

        def execute(self, context: dict[str, Any]) -> Any:
            assert context["task"] is self
            assert context["ti"].task is self
            return [self.text * self.times, self.task_id, self.retries, sorted(self.downstream)]

    with a_dag(default_args={"retries": 2, "times": 3}):
        mapped = Doubles.partial(task_id="t").expand(text=["{{ ds_nodash[:4] }}", "b"])
        mapped >> PythonOperator(task_id="end", python_callable=print)
    assert instances(mapped.output, 2) == [
        ["202620262026", "t", 2, ["end"]],
        ["bbb", "t", 2, ["end"]],
    ]


def test_h17_map_applies_in_each_instance_and_may_skip_it() -> None:
    def halve(value: int) -> float:
        if value % 2:
            raise SkipTask("odd")
        return value / 2

    with a_dag():
        mapped = pair.expand(x=make().map(halve).map(str))
    assert instances(mapped, 3, left(make=[4, 5, 6])) == [["2.0", None], "skipped", ["3.0", None]]


def test_h17_zip_stops_at_the_shortest_or_fills() -> None:
    with a_dag():
        made, other = make(), make.override(task_id="other")()
        short = pair.override(task_id="short").expand(x=made.zip(other, ["c", "d"]))
        long = pair.override(task_id="long").expand(x=made.zip(other, fillvalue="-"))
        whole = pair.override(task_id="whole")(made.zip(other, fillvalue="-"), made.concat(other))
    supervisor = left(make=[1, 2], other=["a", "b", "z"])
    assert [one[0] for one in instances(short, 2, supervisor)] == [(1, "a", "c"), (2, "b", "d")]
    assert [one[0] for one in instances(long, 3, supervisor)] == [(1, "a"), (2, "b"), ("-", "z")]
    assert run(the(whole), supervisor)[1]["return_value"] == [
        [(1, "a"), (2, "b"), ("-", "z")],
        [1, 2, "a", "b", "z"],
    ]


def test_h17_concat_goes_through_its_parts() -> None:
    with a_dag():
        mapped = pair.expand(x=make().concat(make.override(task_id="other")(), ["e"]))
    supervisor = left(make=["a", "b"], other=["c", "d"])
    assert [one[0] for one in instances(mapped, 5, supervisor)] == ["a", "b", "c", "d", "e"]


def test_h17_the_result_of_a_mapped_task_is_the_list_of_its_instances() -> None:
    with a_dag():
        mapped = pair.expand(x=[1, 2, 3])
        total = pair.override(task_id="total")(mapped)
        again = pair.override(task_id="again").expand(x=mapped)
    supervisor = FakeSupervisor()
    instances(mapped, 3, supervisor)
    (whole, _) = run(the(total), supervisor)[1]["return_value"]
    assert whole == [[1, None], [2, None], [3, None]]
    assert instances(again, 2, supervisor)[1] == [[2, None], None]


def test_s57_xcom_pull_of_a_mapped_task() -> None:
    def look(ti: Any) -> Any:
        return [
            ti.xcom_pull(task_ids="pair"),
            ti.xcom_pull(task_ids="pair", map_indexes=1),
            ti.xcom_pull(task_ids="pair", map_indexes=[2, 0]),
            ti.xcom_pull(task_ids=["plain", "pair"]),
            ti.xcom_pull(task_ids="pair", map_indexes=9, default="none"),
        ]

    with a_dag():
        mapped = pair.expand(x=[1, 2, 3])
        PythonOperator(task_id="plain", python_callable=print)
        looks = PythonOperator(task_id="looks", python_callable=look)
    supervisor = left(plain="p")
    instances(mapped, 3, supervisor)
    one, two, three = [1, None], [2, None], [3, None]
    assert run(looks, supervisor)[1]["return_value"] == [
        [one, two, three], two, [three, one], ["p", [one, two, three]], "none",
    ]  # fmt: skip


def test_h17_in_a_mapped_group_results_are_those_of_the_same_index() -> None:
    @task
    def pulls(ti: Any, value: Any) -> Any:
        return [value, ti.xcom_pull(task_ids="load.pair"), ti.map_index]

    @task_group
    def load(x: Any, mode: Any) -> XComArg:
        return pulls(value=pair(x, mode))

    with a_dag() as dag:
        out = load.partial(mode="m").expand(x=make())
        end = pair.override(task_id="end")(out)
    supervisor = left(make=["a", "b"])
    instances(dag.get_task("load.pair").output, 2, supervisor)
    assert instances(out, 2, supervisor) == [
        [["a", "m"], ["a", "m"], 0],
        [["b", "m"], ["b", "m"], 1],
    ]
    assert len(run(the(end), supervisor)[1]["return_value"][0]) == 2


def test_h17_a_group_mapped_over_kwargs() -> None:
    @task_group
    def load(x: Any, y: Any) -> XComArg:
        return pair(x, y)

    with a_dag():
        literal = load.expand_kwargs([{"x": 1, "y": 2}, {"x": 3, "y": 4}])
        pulled = load.partial(y="k").expand_kwargs(make())
    assert instances(literal, 2) == [[1, 2], [3, 4]]
    assert instances(pulled, 1, left(make=[{"x": 5}])) == [[5, "k"]]


def test_h17_results_among_literals_are_replaced() -> None:
    with a_dag():
        mapped = pair.expand(x=["a", make()])
    assert instances(mapped, 2, left(make=7)) == [["a", None], [7, None]]


def test_h17_instances_bear_the_name_that_their_template_gives() -> None:
    @task(map_index_template="{{ file }} ({{ ti.map_index }})")
    def load(x: Any) -> None:
        get_current_context()["file"] = f"{x}.csv"

    with a_dag():
        mapped = load.expand(x=["a", "b"])
        broken = load.override(task_id="broken", map_index_template="{{ nothing }}").expand(x=[1])
    names = [run(the(mapped), map_index=index)[0].map_name for index in range(2)]
    assert names == ["a.csv (0)", "b.csv (1)"]
    outcome, _ = run(the(broken), map_index=0)
    assert (outcome.kind, outcome.map_name) == ("success", None)


def test_h17_branches_can_be_mapped() -> None:
    @task.branch
    def choose(x: str) -> str:
        return x

    with a_dag():
        choice = choose.expand(x=["a", "b"])
        choice >> [PythonOperator(task_id=name, python_callable=print) for name in "ab"]
    assert [run(the(choice), map_index=index)[0].skip for index in range(2)] == [["b"], ["a"]]
