"""XCom, Variable and Connection as a task sees them (S45-S50, S53-S61)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag import Connection, Variable
from roost.exceptions import NotFound, RoostException, VariableNotFound
from roost.hooks import BaseHook
from roost.support.task_requests import ConnectionRecord, Reply, XComPull
from tests.dag.case import FakeSupervisor, a_dag, probe, raw, run


def inside(function: Any, supervisor: FakeSupervisor | None = None) -> Any:
    """The result of ``function(context)`` in a running task."""
    found: list[Any] = []
    outcome, _ = run(probe("me", lambda c: found.append(function(c)), dag=a_dag()), supervisor)
    assert outcome.error is None, outcome.error
    return found[0]


def asked(supervisor: FakeSupervisor) -> XComPull:
    (request,) = supervisor.asked
    assert isinstance(request, XComPull)
    return request


def test_s54_push_is_visible_at_once() -> None:
    def push_and_pull(context: dict[str, Any]) -> Any:
        context["ti"].xcom_push("k", {"a": (1, 2)})
        return context["ti"].xcom_pull(task_ids="me", key="k")

    assert inside(push_and_pull) == {"a": (1, 2)}


def test_s54_a_value_that_cannot_be_stored_fails_in_the_task() -> None:
    outcome, _ = run(probe("me", lambda c: c["ti"].xcom_push("k", object()), dag=a_dag()))
    assert "XCom 'k'" in (outcome.error or "")


def test_s55_return_value_is_pushed_unless_none_or_unwanted() -> None:
    dag = a_dag()
    assert run(probe("a", lambda c: 0, dag=dag))[1] == {"return_value": 0}
    assert run(probe("b", lambda c: None, dag=dag))[1] == {}
    assert run(probe("c", lambda c: 5, dag=dag, do_xcom_push=False))[1] == {}


def test_s55_an_unstorable_return_value_fails_with_its_name() -> None:
    outcome, _ = run(probe("a", lambda c: {"x": object()}, dag=a_dag()))
    assert outcome.kind == "failed"
    assert "XCom 'return_value'" in (outcome.error or "")


def test_s56_filters_are_passed_on() -> None:
    supervisor = FakeSupervisor()
    inside(lambda c: c["ti"].xcom_pull("a", None, "other", True, map_indexes=2), supervisor)
    assert asked(supervisor) == XComPull(["a"], None, "other", None, 2, True)


def test_s56_defaults() -> None:
    supervisor = FakeSupervisor()
    inside(lambda c: c["ti"].xcom_pull(), supervisor)
    assert asked(supervisor) == XComPull(None, "return_value", None, None, None, False)


def test_s57_one_id_gives_a_value_and_several_a_list_in_order() -> None:
    supervisor = FakeSupervisor()
    supervisor.xcoms = {("a", "return_value"): raw(1), ("b", "return_value"): raw(2)}
    assert inside(lambda c: c["ti"].xcom_pull("a"), supervisor) == 1
    pulled = inside(lambda c: c["ti"].xcom_pull(["b", "none", "a"]), supervisor)
    assert pulled == [2, None, 1]
    assert inside(lambda c: c["ti"].xcom_pull(("a",)), supervisor) == [1]
    assert inside(lambda c: c["ti"].xcom_pull([]), supervisor) == []
    assert inside(lambda c: c["ti"].xcom_pull("none", default=9), supervisor) == 9


def test_s61_variable_get() -> None:
    supervisor = FakeSupervisor()
    supervisor.variables.update(a="1", j='{"x": [1]}', bad="{")
    assert inside(lambda c: Variable.get("a"), supervisor) == "1"
    assert inside(lambda c: Variable.get("j", deserialize_json=True), supervisor) == {"x": [1]}
    assert inside(lambda c: Variable.get("none", default_var=None), supervisor) is None
    assert inside(lambda c: Variable.get("none", "d", deserialize_json=True), supervisor) == "d"
    assert inside(lambda c: Variable.get("none", default=3), supervisor) == 3

    def absent(context: Any) -> str:
        with pytest.raises(KeyError) as caught:
            Variable.get("none")
        assert isinstance(caught.value, VariableNotFound)
        with pytest.raises(ValueError, match="'bad' is not JSON"):
            Variable.get("bad", deserialize_json=True)
        return str(caught.value)

    assert inside(absent, supervisor).startswith(
        "Variable 'none' does not exist: set ROOST_VAR_NONE"
    )


def test_what_cannot_be_had_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """S51: the supervisor names a Variable that it cannot decrypt, and not the task again."""
    supervisor = FakeSupervisor()
    for said, told in (
        ("Variable 'a' cannot be decrypted", "Variable 'a' cannot be decrypted"),
        ("no key", "Variable 'a': no key"),
    ):
        monkeypatch.setattr(supervisor, "call", lambda request, said=said: Reply(error=said))

        def refused(context: Any) -> str:
            with pytest.raises(RoostException) as caught:
                Variable.get("a")
            return str(caught.value)

        assert inside(refused, supervisor) == told


def test_s60_variable_set_and_delete() -> None:
    supervisor = FakeSupervisor()
    inside(lambda c: Variable.set("a", 5), supervisor)
    inside(lambda c: Variable.set("j", {"x": 1}, serialize_json=True), supervisor)
    assert supervisor.variables == {"a": "5", "j": '{"x": 1}'}
    assert inside(lambda c: Variable.delete("a"), supervisor) == 1
    assert inside(lambda c: Variable.delete("a"), supervisor) == 0


def test_s48_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = FakeSupervisor()
    supervisor.variables["a"] = "database"
    monkeypatch.setenv("AIRFLOW_VAR_A", "airflow")
    assert inside(lambda c: Variable.get("a"), supervisor) == "airflow"
    monkeypatch.setenv("ROOST_VAR_A", "roost")
    assert Variable.get("a") == "roost"
    monkeypatch.setenv("AIRFLOW_CONN_DB", "postgres://u:p@h/s")
    assert Connection.get("db").host == "h"
    monkeypatch.setenv("ROOST_CONN_DB", '{"conn_type": "mysql", "host": "m", "port": "3306"}')
    assert (Connection.get("db").host, Connection.get("db").port) == ("m", 3306)
    assert supervisor.asked == []


def test_without_a_task_only_the_environment_answers() -> None:
    with pytest.raises(RoostException, match="only be asked by a running task"):
        Variable.get("a")
    assert Variable.get("a", default_var=1) == 1
    with pytest.raises(RoostException, match="Connection 'db'"):
        Connection.get("db")
    with pytest.raises(RoostException, match="only be asked"):
        Variable.set("a", 1)


def test_s49_missing_connection() -> None:
    def get(context: Any) -> str:
        with pytest.raises(NotFound) as caught:
            BaseHook.get_connection("x")
        return str(caught.value)

    assert inside(get).startswith("The conn_id `x` isn't defined: set ROOST_CONN_X")


def test_s50_a_hook_has_a_default_id() -> None:
    class PostgresLike(BaseHook):
        default_conn_id = "postgres_default"

    supervisor = FakeSupervisor()
    supervisor.connections["postgres_default"] = ConnectionRecord("postgres_default", port=5432)
    assert inside(lambda c: PostgresLike.get_connection().port, supervisor) == 5432


def test_an_error_of_the_supervisor_is_raised_in_the_task() -> None:
    supervisor = FakeSupervisor()
    supervisor.error = "the database is away"
    outcome, _ = run(probe("me", lambda c: Variable.get("x"), dag=a_dag()), supervisor)
    assert "Variable 'x': the database is away" in (outcome.error or "")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://u:p%40@Host:5432/db", ("postgres", "Host", "u", "p@", "db", 5432)),
        ("http://https://api.example/v1", ("http", "https://api.example", None, None, "v1", None)),
        ("google-cloud://", ("google_cloud", None, None, None, None, None)),
        ("mysql://:secret@h", ("mysql", "h", None, "secret", None, None)),
        ("redis://[::1]:6379/0", ("redis", "::1", None, None, "0", 6379)),
    ],
)
def test_s48_uri_form(uri: str, expected: tuple[Any, ...]) -> None:
    c = Connection("x", uri=uri)
    assert (c.conn_type, c.host, c.login, c.password, c.schema, c.port) == expected


def test_uri_extra() -> None:
    assert Connection("x", uri="a://h/?k=v%20w&empty=").extra_dejson == {"k": "v w", "empty": ""}
    nested = Connection("x", uri="a://h/?__extra__=%7B%22n%22%3A+%5B1%5D%7D")
    assert nested.extra_dejson == {"n": [1]}


@pytest.mark.parametrize("text", ["nonsense", "://", "{", '{"port": "x"}', "a://h:port/"])
def test_a_wrong_connection_is_named_but_not_shown(text: str) -> None:
    with pytest.raises(RoostException, match="Connection 'db'") as caught:
        Connection.parse("db", text)
    assert "\n" not in str(caught.value)


words = st.text(min_size=1, max_size=8)


@given(
    host=st.from_regex(r"[A-Za-z0-9.:-]{1,12}", fullmatch=True) | st.none(),
    login=words | st.none(),
    password=words | st.none(),
    schema=words | st.none(),
    port=st.integers(1, 65535) | st.none(),
    extra=st.dictionaries(words, words | st.integers(), max_size=3),
)
def test_uri_round_trip(
    host: str | None,
    login: str | None,
    password: str | None,
    schema: str | None,
    port: int | None,
    extra: dict[str, Any],
) -> None:
    before = Connection("x", "my_type", host, login, password, schema, port, extra or None)
    after = Connection("x", uri=before.get_uri())
    for name in ("conn_type", "host", "login", "password", "schema", "port", "extra_dejson"):
        assert getattr(after, name) == getattr(before, name), before.get_uri()
