"""XComs, Variables and Connections from a task to the database and back (S45-S63), on both kinds.

Every request goes through a worker's ledger: no process that runs user code knows the database
(H26).
"""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from roost.dag import Connection, Variable
from roost.exceptions import NotFound, VariableNotFound
from roost.hooks import BaseHook
from roost.models.engine import transact
from roost.models.queries.connections import add_connection
from roost.models.queries.variables import get_variable
from roost.operators import PythonOperator
from roost.support.task_requests import ConnectionRecord
from tests.dag.case import a_dag
from tests.support.databases import fetch
from tests.worker.house import House, made


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    one = House(database_url)
    yield one
    one.close()


def push(key: str, value: object) -> Any:
    return lambda context: context["ti"].xcom_push(key, value)


def pull(*args: Any, **kwargs: Any) -> Any:
    return lambda context: context["ti"].xcom_pull(*args, **kwargs)


VALUE = {
    "text": "ä\u2028\U0001f600",
    "when": datetime(2026, 1, 31, 3, tzinfo=UTC),
    "day": date(2026, 1, 31),
    "gap": timedelta(hours=1),
    "price": decimal.Decimal("1.10"),
    "bytes": b"\x00\xff",
    "tuple": (1, None, True, 1.5),
    "set": {1, 2},
    "large": 2**70,
    "list": [[], {}, ""],
}


def test_s53_an_xcom_is_a_key_a_value_a_time_and_its_task(house: House) -> None:
    house.run("a", push("k", VALUE))
    assert house.seen(pull("a", "k")) == VALUE
    (row,) = fetch(
        house.url,
        "SELECT x.key, x.created_at, t.task_id, r.dag_id, r.logical_date FROM xcom x "
        "JOIN task_instance t ON t.id = x.ti_id JOIN dag_run r ON r.id = t.dag_run_id",
    )
    assert row["created_at"] > 0
    assert (row["key"], row["task_id"], row["dag_id"], row["logical_date"]) == ("k", "a", "d", 100)


def test_s54_a_push_is_visible_before_its_task_has_ended(house: House) -> None:
    seen: list[Any] = []

    def body(context: dict[str, Any]) -> None:
        context["ti"].xcom_push("k", 1)
        seen.append(house.seen(pull("a", "k")))
        context["ti"].xcom_push("k", 2)
        seen.append(context["ti"].xcom_pull("a", "k"))

    assert house.run("a", body).error is None
    assert seen == [1, 2]


def test_s55_what_a_task_returns_is_its_return_value_unless_none(house: House) -> None:
    house.run("a", lambda _: {"rows": 0})
    house.run("b", PythonOperator(task_id="b", python_callable=lambda: 0, dag=a_dag()))
    house.run("c", lambda _: None)
    assert house.seen(pull("a")) == {"rows": 0}
    assert house.seen(pull("b", key="return_value")) == 0
    assert house.seen(pull("c")) is None
    (count,) = fetch(house.url, "SELECT count(*) AS n FROM xcom")
    assert count["n"] == 2


def test_s56_the_default_key_is_return_value_only_and_none_takes_any(house: House) -> None:
    house.run("a", push("other", 5))
    assert house.seen(pull("a")) is None
    assert house.seen(pull("a", key=None)) == 5
    assert house.seen(pull("a", key="other")) == 5
    house.run("b", push("more", 6))
    assert house.seen(pull(key=None)) == 6
    assert house.seen(pull(key="other")) == 5


def test_s56_the_default_dag_and_run_are_the_tasks_own(house: House) -> None:
    house.start("r2", 200)
    house.start("r", 100, dag_id="other")
    house.run("a", lambda _: "own")
    house.run("a", lambda _: "later run", run_id="r2")
    house.run("a", lambda _: "other dag", dag_id="other")
    assert house.seen(pull("a")) == "own"
    assert house.seen(pull("a", dag_id="other"), run_id="r2") is None
    assert house.seen(pull("a", dag_id="other", run_id="r"), run_id="r2") == "other dag"
    assert house.seen(pull("a"), run_id="r2") == "later run"
    assert house.seen(pull("a", run_id="r"), run_id="r2") == "own"


@pytest.mark.parametrize("ids", ["a", ["a"]])
def test_s56_prior_dates_are_looked_at_on_request_and_never_later_ones(
    house: House, ids: Any
) -> None:
    for run_id, day in (("r1", 50), ("r3", 300), ("none", None)):
        house.start(run_id, day)
    house.run("a", lambda _: "earlier", run_id="r1")
    house.run("a", lambda _: "later", run_id="r3")
    house.run("a", lambda _: "without a date", run_id="none")
    found = house.seen(lambda c: (pull(ids)(c), pull(ids, include_prior_dates=True)(c)))
    expected: tuple[Any, Any] = (None, "earlier")
    assert found == (expected if ids == "a" else ([None], ["earlier"]))
    house.run("a", lambda _: "own")
    assert house.run("b", lambda c: pull("a", include_prior_dates=True)(c)).error is None
    house.start("r4", 400)
    assert house.seen(pull("a", include_prior_dates=True), run_id="r4") == "later"


def test_s57_one_id_gives_a_value_and_several_a_list_in_their_order(house: House) -> None:
    for task_id in ("a", "b", "c"):
        house.run(task_id, lambda c: c["ti"].task_id * 2)
    assert house.seen(pull("b")) == "bb"
    assert house.seen(pull(["c", "a", "b"])) == ["cc", "aa", "bb"]
    assert house.seen(pull(("b",))) == ["bb"]
    assert house.seen(pull([])) == []


def test_s57_none_stands_where_nothing_matched(house: House) -> None:
    for task_id in ("a", "b", "c"):
        house.run(task_id, lambda c: c["ti"].task_id * 2)
    found = house.seen(pull(["c", "x", "a", "nobody", "c"]))
    assert found == ["cc", None, "aa", None, "cc"]
    assert house.seen(pull("x")) is None
    assert house.seen(pull("x", default=0)) == 0


def test_s58_templates_pull(house: House) -> None:
    house.run("a", push("table_name", "orders"))
    task = PythonOperator(
        task_id="b",
        python_callable=lambda name: name,
        op_args=["{{ task_instance.xcom_pull(task_ids='a', key='table_name') }}"],
        dag=a_dag(),
    )
    house.run("b", task)
    assert house.seen(pull("b")) == "orders"


def test_s59_a_variable_is_for_all_an_xcom_for_its_run(house: House) -> None:
    house.start("r2", 200)
    house.run("a", lambda c: (c["ti"].xcom_push("k", 1), Variable.set("k", 1))[0])
    found = house.seen(lambda c: (pull("a", "k")(c), Variable.get("k")), run_id="r2")
    assert found == (None, "1")


def test_s60_variables_are_made_changed_and_deleted_by_code(house: House) -> None:
    def body(_: Any) -> list[Any]:
        Variable.set("k", "one", description="about")
        first = Variable.get("k")
        Variable.set("k", "two")
        return [first, Variable.get("k"), Variable.delete("k"), Variable.delete("k")]

    assert house.seen(body) == ["one", "two", 1, 0]
    house.seen(lambda _: Variable.set("k", "x" * 251))
    outcome = house.run("a", lambda _: Variable.set("k" * 251, "x"))
    assert "a Variable's key has 1 to 250 characters" in (outcome.error or "")


def test_s61_variable_get(house: House) -> None:
    def body(_: Any) -> list[Any]:
        Variable.set("j", {"x": [1, None]}, serialize_json=True)
        with pytest.raises(KeyError) as caught:
            Variable.get("none")
        assert isinstance(caught.value, VariableNotFound)
        return [
            Variable.get("j"),
            Variable.get("j", deserialize_json=True),
            Variable.get("none", default_var=None),
            Variable.get("none", "d", deserialize_json=True),
        ]

    assert house.seen(body) == ['{"x": [1, null]}', {"x": [1, None]}, None, "d"]


def test_s62_a_variable_is_encrypted_in_the_database(house: House) -> None:
    house.seen(lambda _: Variable.set("k", "canary"))
    (row,) = fetch(house.url, "SELECT * FROM variable")
    assert "canary" not in str(row)
    assert transact(house.engine, lambda tx: get_variable(tx, "k", house.keys)) == "canary"


def test_s63_variables_in_templates(house: House) -> None:
    house.seen(lambda _: Variable.set("limits", {"rows": 5}, serialize_json=True))
    task = PythonOperator(
        task_id="b",
        python_callable=lambda *found: list(found),
        op_args=[
            "{{ var.value.limits }}",
            "{{ var.json.limits.rows }}",
            "{{ var.value.get('none', 'd') }}",
            "{{ var.json.get('none', {'rows': 1}).rows }}",
        ],
        dag=a_dag(),
    )
    house.run("b", task)
    assert house.seen(pull("b")) == ['{"rows": 5}', "5", "d", "1"]


def test_s45_s46_s49_s50_connections_of_hooks(house: House) -> None:
    record = ConnectionRecord(
        "wh_default", "pg", "h", "me", "p w", "s", 5, '{"k": [1]}', "what it is"
    )
    transact(house.engine, lambda tx: add_connection(tx, record, house.keys))

    class Hook(BaseHook):
        default_conn_id = "wh_default"

    def body(_: Any) -> Connection:
        with pytest.raises(NotFound, match="The conn_id `x` isn't defined"):
            Hook.get_connection("x")
        return Hook.get_connection()

    assert house.seen(body).as_record() == record


def test_xcoms_of_a_dispatch_that_is_not_held_any_more_are_refused_invariant_s16(
    house: House,
) -> None:
    def body(context: dict[str, Any]) -> None:
        fetch(house.url, "UPDATE dispatch SET job_id = 77")
        context["ti"].xcom_push("k", 1)

    outcome = house.run("a", body, store=False)
    assert "this dispatch is not valid any more" in (outcome.error or "")
    assert fetch(house.url, "SELECT * FROM xcom") == []


# -- limits ----------------------------------------------------------------------------------------


def test_s53_a_large_xcom_fails_in_the_task_with_a_remedy(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST__CORE__MAX_XCOM_SIZE", "2000")
    for body in (push("big", "x" * 1999), lambda _: ["x" * 999, "y" * 999]):
        outcome = house.run("a" if "push" in str(body) else "b", body)
        error = (outcome.error or "").splitlines()[-1]
        key = "big" if "big" in error else "return_value"
        task_id = "a" if key == "big" else "b"
        assert f"XCom '{key}' of task '{task_id}': at least 2,00" in error
        assert error.endswith(
            "bytes, core.max_xcom_size is 2,000; store it elsewhere and push where it is, or raise "
            "the setting"
        )
    assert fetch(house.url, "SELECT * FROM xcom") == []


def test_s53_the_worker_refuses_what_a_task_process_lets_pass(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The house's worker takes 50,000 bytes, this task process believes in more."""
    monkeypatch.setenv("ROOST__CORE__MAX_XCOM_SIZE", "900000")
    pushed = house.run("a", push("big", "x" * 60_000))
    assert "XCom 'big' of task 'a': 60,002 bytes, core.max_xcom_size is 50,000" in (
        pushed.error or ""
    )
    house.run("b", lambda _: "x" * 60_000)
    (row,) = fetch(house.url, "SELECT outcome FROM dispatch WHERE id = 2")
    assert '"kind":"failed"' in row["outcome"]
    assert "XCom 'return_value' of task 'b': 60,002 bytes" in row["outcome"]
    assert fetch(house.url, "SELECT * FROM xcom") == []


@pytest.mark.parametrize("key", ["", "k" * 513, "a\0b", 5, None])
def test_s53_a_key_is_a_name(house: House, key: Any) -> None:
    outcome = house.run("a", push(key, 1))
    assert "XCom of task 'a': the key must be a text of 1 to 512 characters" in (
        outcome.error or ""
    )


# -- pickling --------------------------------------------------------------------------------------


class Point:
    """What typed JSON does not hold."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def test_s53_pickling_is_off_by_default(house: House) -> None:
    outcome = house.run("a", push("p", Point(1)))
    assert "XCom 'p' of task 'a'" in (outcome.error or "")
    assert fetch(house.url, "SELECT * FROM xcom") == []


def test_s53_pickling_is_for_what_json_does_not_hold(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST__CORE__XCOM_PICKLING", "true")
    house.run("a", lambda _: Point(1))
    house.run("b", lambda _: {"plain": (1,)})
    assert house.seen(pull(["a", "b", "c"])) == [Point(1), {"plain": (1,)}, None]
    stored = [row["value"] for row in fetch(house.url, "SELECT value FROM xcom ORDER BY ti_id")]
    assert stored[0].startswith('{"$roost":"pickle","value":"')
    assert "pickle" not in stored[1]

    monkeypatch.setenv("ROOST__CORE__XCOM_PICKLING", "false")
    outcome = house.run("c", lambda c: c["ti"].xcom_pull("a"))
    assert "was pickled and core.xcom_pickling is off" in (outcome.error or "")


def test_s53_what_cannot_be_pickled_either_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST__CORE__XCOM_PICKLING", "true")
    outcome = house.run("a", push("f", lambda: 0))
    assert "XCom 'f' of task 'a' cannot be pickled" in (outcome.error or "")


def test_a_value_that_looks_like_a_pickle_is_a_value(house: House) -> None:
    """A user's own dict with the tag's key is tagged itself, so nobody can smuggle one in."""
    value = {"$roost": "pickle", "value": "gARLAS4="}
    house.run("a", lambda _: value)
    assert house.seen(pull("a")) == value
    task = made(a_dag(), "b", lambda _: ["pickle", {"$roost": "pickle"}])
    house.run("b", task)
    assert house.seen(pull("b")) == ["pickle", {"$roost": "pickle"}]
