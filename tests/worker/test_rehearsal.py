"""The rehearsal leaves nothing behind that anybody sees."""

from __future__ import annotations

import subprocess
import sys

_REHEARSE = """
import logging

logging.basicConfig(level=logging.INFO)
from roost.worker.rehearsal import rehearse

rehearse()
logging.getLogger("roost").info("the show")
"""

_COUNTED = """
lines = []
logging.getLogger().handlers[0].addFilter(lambda record: lines.append(record) or True)
rehearse()
print(len(lines))
"""


def test_nobody_reads_of_tasks_that_were_only_rehearsed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _REHEARSE], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "INFO:roost:the show\n")


def test_the_code_that_logs_is_rehearsed_too() -> None:
    """A young process pays for code that has never run: lines are written, to nowhere."""
    told = _REHEARSE.replace("rehearse()\n", _COUNTED)
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 16, done.stderr
