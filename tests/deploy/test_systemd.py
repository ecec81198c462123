"""The systemd units: what they say, and what systemd itself says of them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from deploy.generate import HERE
from roost.cli.main import cli
from roost.support.config import load_config

UNITS = HERE / "systemd"
# Daemon -> ten times the exposure that `systemd-analyze security` may find.
GATES = {"scheduler": 12, "triggerer": 15, "worker": 20}
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="needs systemd-analyze (Debian: apt-get install systemd)",
)


def unit(daemon: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read(UNITS / f"roost-{daemon}.service", encoding="utf-8")
    return {name: dict(parser[name]) for name in parser.sections()}


@pytest.mark.parametrize("daemon", GATES)
def test_a_unit_starts_its_daemon_and_starts_it_again(daemon: str) -> None:
    parts = unit(daemon)
    service = parts["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert parts["Unit"]["StartLimitIntervalSec"] == "0"
    assert int(service["WatchdogSec"]) >= 3 * 4  # daemons renew their lease every 4 s
    assert service["KillMode"] == "mixed"
    program, command = service["ExecStart"].split()
    assert program == "/opt/roost/bin/roost"
    assert command == daemon
    assert command in cli.list_commands(click.Context(cli))
    assert parts["Install"]["WantedBy"] == parts["Unit"]["PartOf"] == "roost.target"


def test_the_target_wants_every_daemon() -> None:
    text = (UNITS / "roost.target").read_text(encoding="utf-8")
    assert set(re.findall(r"roost-(\w+)\.service", text)) == set(GATES)


def test_a_worker_is_given_more_time_to_stop_than_its_tasks_are() -> None:
    drain = load_config({"ROOST_HOME": "/nowhere"}).worker.drain_timeout
    assert int(unit("worker")["Service"]["TimeoutStopSec"]) > drain + 5


def test_tasks_are_not_in_the_unit_of_the_scheduler() -> None:
    """Restarting it neither kills them nor waits for them."""
    assert "worker" not in unit("scheduler")["Service"]["ExecStart"]
    assert "BindsTo" not in unit("worker")["Unit"]
    assert "Requires" not in unit("worker")["Unit"]


def test_the_example_of_the_environment_file_holds_settings_that_exist(tmp_path: Path) -> None:
    text = (UNITS / "roost.env.example").read_text(encoding="utf-8")
    given = dict(re.findall(r"^#?(ROOST__\w+)=(.*)$", text, flags=re.MULTILINE))
    assert len(given) >= 6
    config = load_config({"ROOST_HOME": str(tmp_path), **given})  # unknown keys are an error
    assert config.statsd.enabled


def test_user_and_folders_agree_between_the_files() -> None:
    sysusers = (UNITS / "roost.sysusers.conf").read_text(encoding="utf-8")
    tmpfiles = (UNITS / "roost.tmpfiles.conf").read_text(encoding="utf-8")
    for daemon in GATES:
        service = unit(daemon)["Service"]
        assert f"u {service['User']} " in sysusers
        assert "ROOST_HOME=/var/lib/" + service["StateDirectory"] in service["Environment"]
    assert " /var/lib/roost" in sysusers
    assert re.search(r"^d /var/lib/roost +0750 roost roost", tmpfiles, flags=re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with a program that exists: ``verify`` looks for it."""
    for path in UNITS.glob("roost*.*"):
        text = path.read_text(encoding="utf-8").replace("/opt/roost/bin/roost", "/bin/true")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    return tmp_path


def verify(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_systemd
@pytest.mark.parametrize("name", [f"roost-{daemon}.service" for daemon in GATES] + ["roost.target"])
def test_systemd_verifies_the_unit(installed: Path, name: str) -> None:
    found = verify(installed / name)
    assert found.returncode == 0, found.stderr


@needs_systemd
def test_systemd_would_find_a_misspelt_key(installed: Path) -> None:
    path = installed / "roost-scheduler.service"
    path.write_text(path.read_text(encoding="utf-8").replace("WatchdogSec", "WatchDogSek"))
    assert verify(path).returncode != 0


@needs_systemd
@pytest.mark.parametrize(("daemon", "gate"), GATES.items())
def test_the_exposure_stays_within_its_gate(installed: Path, daemon: str, gate: int) -> None:
    found = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--no-pager",
            "--offline=yes",
            f"--threshold={gate}",
            str(installed / f"roost-{daemon}.service"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-300:] + found.stderr
