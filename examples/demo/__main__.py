"""`make demo`: runs the DAG beside this file on an embedded SQLite database, and shows it live.

The outside world is played here: the file lands a few seconds after the run has begun. Everything
else is Roost as it is installed: ``roost standalone`` in a home of its own, its DAGs folder, its
command line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE_S = 50.0
LANDS_AFTER_S = 4.0
NOT_BEFORE_S = 6.0


def say(line: str = "") -> None:
    """A line for the person who watches."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Demo:
    """One home, one ``roost standalone``, one run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {**os.environ, "ROOST_HOME": str(home)}
        for name in [n for n in self.env if n.startswith("ROOST__")]:
            del self.env[name]
        self.deadline = time.monotonic() + PATIENCE_S

    def prepare(self) -> Path:
        """Make the home; gives the folder with the time zone tables of the package tzdata."""
        shutil.copytree(HERE / "dags", self.home / "dags")
        (self.home / "incoming").mkdir()
        spec = importlib.util.find_spec("tzdata")
        if spec is None or spec.origin is None:
            sys.exit("the package tzdata is missing; run `make demo`, which installs it")
        tables = Path(spec.origin).parent / "zoneinfo"
        shutil.copy(tables / "iso3166.tab", self.home / "incoming")
        return tables

    def roost(self, *args: str) -> list[str]:
        """A command line of the roost that is installed beside this Python."""
        return [str(Path(sys.executable).with_name("roost")), *args]

    def ask(self, *args: str) -> list[dict[str, Any]]:
        """What a listing says, as JSON."""
        done = subprocess.run(
            self.roost(*args, "-o", "json"), env=self.env, capture_output=True, text=True
        )
        return list(json.loads(done.stdout)) if done.returncode == 0 else []

    def wait_for(self, what: str, arrived: Any) -> None:
        """Look until it is so."""
        while not arrived():
            if time.monotonic() > self.deadline:
                raise TimeoutError(f"{what} did not come; look into {self.home}/logs")
            time.sleep(0.2)

    def run(self) -> int:
        """Everything, from an empty home to the report; gives the exit code."""
        tables = self.prepare()
        say("== a scheduler, a worker and a triggerer, on SQLite, with `roost standalone`")
        daemons = subprocess.Popen(self.roost("standalone", "--quiet"), env=self.env)
        try:
            self.wait_for("the DAG", lambda: self.ask("dags", "list"))
            return self.watch(tables)
        finally:
            daemons.send_signal(signal.SIGTERM)
            daemons.wait(40)

    def watch(self, tables: Path) -> int:
        """Trigger the run, let the file land, and show what happens."""
        not_before = datetime.now(UTC) + timedelta(seconds=NOT_BEFORE_S)
        say(f"\n== the run waits for a file that has not landed and for {not_before:%H:%M:%S} UTC")
        conf = json.dumps({"not_before": not_before.isoformat()})
        arguments = ("dags", "trigger", "time_zones", "--run-id", "demo", "--conf", conf, "--wait")
        began = time.monotonic()
        trigger = subprocess.Popen(self.roost(*arguments), env=self.env)
        try:
            self.wait_for("both deferred tasks", lambda: self.deferred() == 2)
            pool = next(p for p in self.ask("pools", "list") if p["pool"] == "default_pool")
            say(
                f"-- 2 tasks are deferred; slots in use: {pool['running'] + pool['queued']} of "
                f"{pool['slots']}"
            )
            time.sleep(max(0.0, began + LANDS_AFTER_S - time.monotonic()))
            landing = self.home / "incoming" / ".zone1970.tab"
            shutil.copy(tables / "zone1970.tab", landing)
            landing.rename(self.home / "incoming" / "zone1970.tab")
            say("-- the file lands")
            code = trigger.wait(max(1.0, self.deadline - time.monotonic()))
        finally:
            if trigger.poll() is None:
                trigger.terminate()
                trigger.wait()
        if code == 0:
            self.report(tables)
        return code

    def deferred(self) -> int:
        """How many tasks of the run are deferred."""
        rows = self.ask("tasks", "states-for-dag-run", "time_zones", "demo")
        return sum(row["state"] == "deferred" for row in rows)

    def report(self, tables: Path) -> None:
        """The figures that the task reported, and how to count them by hand."""
        log = subprocess.run(
            self.roost("tasks", "logs", "time_zones", "demo", "report"),
            env=self.env,
            capture_output=True,
            text=True,
        )
        say("\n== what the task `report` returned")
        say(log.stdout.strip("\n"))
        say("\n== count it by hand")
        for command in by_hand(os.path.relpath(tables)):
            say(command)


def by_hand(tables: str) -> list[str]:
    """Commands that count what the task ``report`` counted, in its order."""
    zones = f"grep -v '^#' {tables}/zone1970.tab"
    return [
        f"{zones} | wc -l",
        f"grep -vc '^#' {tables}/iso3166.tab",
        f"{zones} | cut -f1 | tr , '\\n' | sort -u | wc -l",
        f"{zones} | cut -f1 | grep -c US",
        f"{zones} | cut -f3 | grep -c ^America/",
    ]


def main() -> int:
    """Run the demo in a home of its own that is taken away afterwards."""
    home = Path(tempfile.mkdtemp(prefix="roost-demo-"))
    try:
        return Demo(home).run()
    except TimeoutError as error:
        say(f"the demo stopped: {error}")
        return 1
    finally:
        if os.environ.get("ROOST_DEMO_KEEP"):
            say(f"kept {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
