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


def test_nobody_reads_of_tasks_that_were_only_rehearsed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _REHEARSE], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "INFO:roost:the show\n")
