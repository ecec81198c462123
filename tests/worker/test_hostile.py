"""A task that does not speak our language harms itself alone: its worker keeps its memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from roost.support.task_requests import Reply
from tests.worker.driving import Driver

LIMIT = 64 * 1024
# The task's line is the one socket that it has.
FIND_LINE = """
def line():
    for number in range(3, 100):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                return number
        except OSError:
            pass
def send(data):
    while data:
        data = data[os.write(line(), data):]
def frame(body):
    return len(body).to_bytes(4, "big") + body
"""


@pytest.fixture
def strict(make_driver: Callable[..., Driver]) -> Driver:
    return make_driver(max_frame=LIMIT)


def fails(driver: Driver, body: str) -> str:
    """The error of a task that does this, and the proof that another one still runs."""
    driver.tasks(FIND_LINE + body, "return 1")
    outcome = driver.run("t0")
    assert outcome.kind == "failed"
    assert driver.run("t1").kind == "success"
    return outcome.error or ""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            f"send(({LIMIT} + 1).to_bytes(4, 'big') + b'x')\ntime.sleep(60)",
            "a frame of 65,537 bytes is announced; at most 65,536 may be",
        ),
        (
            f"send(frame(b'x' * {LIMIT * 100}))",
            "a frame of 6,553,600 bytes is announced; at most 65,536 may be",
        ),
        (
            """send(frame(b'{"type":"finished","x":' + b'[' * 60000))\ntime.sleep(60)""",
            "no message: maximum recursion depth exceeded",
        ),
        ("""send(frame(b'{"type":"nonsense"}'))\ntime.sleep(60)""", "no message: Invalid value"),
        ("send(b'\\xff' * 1000)\ntime.sleep(60)", "a frame of 4,294,967,295 bytes"),
        (
            """send(frame(b'{"type":"variable_get","key":"k"}') * 2)\ntime.sleep(60)""",
            "a request before the last one was answered",
        ),
    ],
    ids=["announced", "sent", "nested", "unknown", "noise", "impatient"],
)
def test_h26_what_is_no_message_ends_the_task_alone(strict: Driver, body: str, told: str) -> None:
    assert told in fails(strict, body)


def test_an_answer_too_large_for_the_line_is_an_error_of_the_task(driver: Driver) -> None:
    driver.tasks(
        "from roost.dag import Variable\n"
        "try:\n"
        "    Variable.get('big')\n"
        "except Exception as error:\n"
        "    return str(error)"
    )
    dispatch_id = driver.start()
    driver.until(lambda: driver.asked, "the request")
    driver.asked.clear()
    driver.hub.reply(dispatch_id, Reply(text="x" * (64 * 1024 * 1024)))
    [write] = driver.outcome(dispatch_id).xcoms
    assert b"is longer than 67,108,864; pull fewer XComs at once" in bytes(write.value)
