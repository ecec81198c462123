"""Secrets that a task was given do not appear in its log or its outcome (reliability S19)."""

from __future__ import annotations

import base64

from roost.support.task_requests import ConnectionGet, ConnectionRecord, Reply
from roost.support.wire import Outcome
from tests.worker.driving import Driver

PASSWORD = "canary/7 & \"'x"  # noqa: S105
LEAKS = f"""
import json, logging, urllib.parse
from roost.dag import Connection, Variable, mask_secret
from roost.operators import BashOperator
print("harmless before")
conn = Connection.get("wh")
assert conn.password == {PASSWORD!r}
token = Variable.get("my_token")
mask_secret("canary-made-here")
print(conn.password, conn.get_uri(), json.dumps([conn.password]), repr(conn.password))
print("in", end=" ")
for piece in ("can", "ary-", "token"):
    print(piece, end="", flush=True)
print()
logging.getLogger("x").error("token %s", token)
logging.getLogger("x").error("basic %s", __import__("base64").b64encode(
    f"me:{{conn.password}}".encode()).decode())
print("extra", conn.extra_dejson, "made canary-made-here")
sys.stderr.write("err " + token + "\\n")
context = {{"ti": __import__("roost.dag").dag.get_current_context()["ti"]}}
BashOperator(task_id="b", bash_command="echo bash $T; echo $T >&2", env={{"T": token}},
             append_env=True).execute(context)
print("held canary-tok", end="")
"""


def serve(driver: Driver) -> None:
    """Answer what the task asks."""
    record = ConnectionRecord(
        "wh", "http", host="h", login="me", password=PASSWORD, extra='{"api_key": "canary-key"}'
    )
    for asked in driver.asked:
        reply = (
            Reply(connection=record)
            if isinstance(asked.request, ConnectionGet)
            else Reply(text="canary-token")
        )
        driver.hub.reply(asked.spec.dispatch_id, reply)
    driver.asked.clear()


def run(driver: Driver, task_id: str) -> Outcome:
    dispatch_id = driver.start(task_id)

    def ended() -> bool:
        serve(driver)
        return dispatch_id in driver.outcomes and dispatch_id not in driver.hub.dispatch_ids

    driver.until(ended, "the outcome")
    return driver.outcomes[dispatch_id]


def test_what_a_task_prints_logs_and_runs_is_masked(driver: Driver) -> None:
    driver.tasks(LEAKS)
    assert run(driver, "t0").error is None
    log = driver.log()
    assert "harmless before" in log
    assert "canary-t" not in log.replace("held canary-tok", "")
    assert "canary" not in log.replace("held canary-tok", "")
    assert base64.b64encode(f"me:{PASSWORD}".encode()).decode() not in log
    for told in ("in ***", "token ***", "basic ***", "'api_key': '***'", "made ***", "err ***"):
        assert told in log, told
    assert log.count("bash ***") == 1
    assert log.endswith("held canary-tok")  # the beginning of a secret is not one


def test_an_exception_is_masked_in_log_and_outcome(driver: Driver) -> None:
    driver.tasks(
        "from roost.dag import Connection\n"
        "raise ValueError('cannot reach ' + Connection.get('wh').get_uri())",
        "from roost.dag import Variable\nfrom roost.exceptions import SkipTask\n"
        "raise SkipTask(Variable.get('my_token'))",
    )
    outcome = run(driver, "t0")
    assert outcome.kind == "failed"
    assert "ValueError: cannot reach http://me:***@h" in (outcome.error or "")
    assert "canary" not in (outcome.error or "")
    assert "canary" not in driver.log("t0")
    assert run(driver, "t1").kind == "skipped"
    assert "skipped: ***" in driver.log("t1")


def test_a_task_that_was_given_no_secret_hides_nothing(driver: Driver) -> None:
    driver.tasks("print('canary-token')")
    driver.run()
    assert "canary-token\n" in driver.log()


def test_one_task_does_not_hide_what_another_was_given(driver: Driver) -> None:
    driver.tasks(
        "from roost.dag import Variable\nprint(Variable.get('my_token'))", "print('canary-token')"
    )
    run(driver, "t0")
    run(driver, "t1")
    assert "***" in driver.log("t0")
    assert "canary-token" in driver.log("t1")
