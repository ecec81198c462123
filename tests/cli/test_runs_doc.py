"""docs/runs.md: its commands, run in order against real daemons, print what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """Each command of the page with the lines that it shows as printed."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCKS:
        for line in block.splitlines():
            if line.startswith("$ roost "):
                found.append((line.removeprefix("$ roost "), []))
            else:
                found[-1][1].append(line)
    return found


def shown(line: str, printed: str) -> bool:
    """Whether a line of the page was printed; an ellipsis stands for anything."""
    pattern = re.escape(line).replace("…", ".*")
    return re.search(f"^{pattern}$", printed, re.MULTILINE) is not None


@pytest.mark.timeout(240)
def test_every_command_of_the_page_does_what_the_page_says(
    daemons: Daemons, roost_home: Path
) -> None:
    """S19-S27, H12, H15, H21: trigger, backfill, clear, mark, pause, delete."""
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (roost_home / "dags" / "sales.py").write_text(source)
    daemons.start_all("scheduler", "worker")
    wait_until(lambda: "sales" in daemons.cli("dags", "list").stdout, what="the DAG")
    ran = commands()
    assert len(ran) == 14
    for command, lines in ran:
        if command.startswith("tasks mark"):
            # The page does not wait for what the command before it has started.
            wait_until(lambda: state(daemons, "broken") == "failed", what="the run to end")
        if command.startswith("dags pause"):
            wait_until(lambda: state(daemons, "broken") == "success", what="the run to end")
        done = daemons.cli(*shlex.split(command), check=False)
        printed = done.stdout + done.stderr
        fails = "/not/there" in command
        assert done.returncode == fails, f"{command}:\n{printed}"
        missing = [line for line in lines if not shown(line, printed)]
        assert not missing, f"{command} printed\n{printed}"


def state(daemons: Daemons, run_id: str) -> str:
    return daemons.cli("dags", "state", "sales", run_id).stdout.split()[0]
