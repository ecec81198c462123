"""How a value is found, which place wins, and what a mistake says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from roost.exceptions import ConfigError
from roost.support.config import load_config, without_secrets


def env_of(home: Path, **variables: str) -> dict[str, str]:
    return {"ROOST_HOME": str(home), **variables}


def test_without_a_file_every_value_is_the_default(tmp_path: Path) -> None:
    config = load_config(env_of(tmp_path))
    assert config.home == tmp_path
    assert config.dags_folder == tmp_path / "dags"
    assert config.log_folder == tmp_path / "logs"
    assert config.run_dir == tmp_path / "run"
    assert config.database.url == f"sqlite:///{tmp_path}/roost.db"
    assert config.core.parallelism == 32
    assert config.core.dags_are_paused_at_creation is False
    assert {str(origin) for origin in config.origins.values()} == {"default"}


def test_each_place_overrides_the_weaker_ones(tmp_path: Path) -> None:
    (tmp_path / "roost.toml").write_text("[core]\nparallelism = 1\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    value = tmp_path / "value"
    value.write_text("3\n")
    env = env_of(tmp_path)
    seen = [load_config(env)]
    (credentials / "core.parallelism").write_text("2\n")
    (credentials / "somebody.else").write_text("not ours")
    env["CREDENTIALS_DIRECTORY"] = str(credentials)
    seen.append(load_config(env))
    env["ROOST__CORE__PARALLELISM_FILE"] = str(value)
    seen.append(load_config(env))
    del env["ROOST__CORE__PARALLELISM_FILE"]
    env["ROOST__CORE__PARALLELISM"] = "4"
    seen.append(load_config(env))
    seen.append(load_config(env, {"core.parallelism": 5}))
    assert [config.core.parallelism for config in seen] == [1, 2, 3, 4, 5]
    assert [config.origins["core.parallelism"].kind for config in seen] == [
        "file",
        "credential",
        "env",
        "env",
        "override",
    ]


def test_the_home_is_tilde_roost_by_default() -> None:
    assert load_config({}).home == Path("~/roost").expanduser()


def test_paths_are_relative_to_the_home(tmp_path: Path) -> None:
    config = load_config(
        env_of(
            tmp_path,
            ROOST__CORE__DAGS_FOLDER="my/dags",
            ROOST__LOGGING__FOLDER="$ROOST_HOME/l",
            ROOST__DATABASE__URL="sqlite:///x.db",
        )
    )
    assert config.dags_folder == tmp_path / "my/dags"
    assert config.log_folder == tmp_path / "l"
    assert config.database.url == f"sqlite:///{tmp_path}/x.db"


def test_text_is_read_as_the_settings_type(tmp_path: Path) -> None:
    config = load_config(
        env_of(
            tmp_path,
            ROOST__WORKER__QUEUES="default, gpu",
            ROOST__CORE__DAG_DISCOVERY_SAFE_MODE="No",
            ROOST__SCHEDULER__POLL_INTERVAL="0.5",
        )
    )
    assert config.worker.queues == ("default", "gpu")
    assert config.core.dag_discovery_safe_mode is False
    assert config.scheduler.poll_interval == 0.5


def test_toml_takes_a_whole_number_for_seconds_but_no_text_for_a_number(tmp_path: Path) -> None:
    file = tmp_path / "roost.toml"
    file.write_text('[scheduler]\npoll_interval = 2\n[worker]\nqueues = ["a"]\n')
    config = load_config(env_of(tmp_path))
    assert (config.scheduler.poll_interval, config.worker.queues) == (2.0, ("a",))
    file.write_text('[core]\nparallelism = "8"\n')
    with pytest.raises(ConfigError, match=r"roost\.toml is wrong; give a whole number >= 1"):
        load_config(env_of(tmp_path))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "ROOST__CORE__PARALELISM",
            "3",
            (
                "environment variable ROOST__CORE__PARALELISM: there is no setting 'paralelism' in "
                "[core]; did you mean core.parallelism?"
            ),
        ),
        (
            "ROOST__STATD__HOST",
            "x",
            (
                "environment variable ROOST__STATD__HOST: there is no section [statd]; "
                "did you mean [statsd]?"
            ),
        ),
        (
            "ROOST__CORE__PARALLELISM",
            "many",
            (
                "core.parallelism = 'many' in env ROOST__CORE__PARALLELISM is wrong; "
                "give a whole number >= 1"
            ),
        ),
        (
            "ROOST__LOGGING__LEVEL",
            "loud",
            (
                "logging.level = 'loud' in env ROOST__LOGGING__LEVEL is wrong; "
                "give one of DEBUG, INFO, WARNING, ERROR"
            ),
        ),
        (
            "ROOST__WORKER__DRAIN_TIMEOUT",
            "inf",
            (
                "worker.drain_timeout = 'inf' in env ROOST__WORKER__DRAIN_TIMEOUT is wrong; "
                "give a number >= 0"
            ),
        ),
        (
            "ROOST__CORE__DEFAULT_TIMEZONE",
            "Mars/Olympus",
            (
                "core.default_timezone = 'Mars/Olympus' in env ROOST__CORE__DEFAULT_TIMEZONE: "
                "there is no such time zone; give an IANA name such as Europe/Berlin"
            ),
        ),
    ],
)
def test_a_mistake_names_the_place_and_the_remedy(
    tmp_path: Path, variable: str, value: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(env_of(tmp_path, **{variable: value}))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[core]\nparalelism = 1", "did you mean core.parallelism"),
        ("[cor]\nparallelism = 1", r"did you mean \[core\]"),
        ("[cor]", r"did you mean \[core\]"),
        ("parallelism = 1", "stands outside a section"),
        ("[core", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "roost.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(env_of(tmp_path))
    assert str(tmp_path / "roost.toml") in str(caught.value)


def test_a_variable_and_its_file_contradict_each_other(tmp_path: Path) -> None:
    env = env_of(tmp_path, ROOST__STATSD__HOST="a", ROOST__STATSD__HOST_FILE="b")
    with pytest.raises(ConfigError, match="both set; unset one"):
        load_config(env)


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read /nowhere: No such file"):
        load_config(env_of(tmp_path, ROOST__DATABASE__URL_FILE="/nowhere"))


def test_value_by_name_suggests_the_nearest(tmp_path: Path) -> None:
    config = load_config(env_of(tmp_path))
    assert config.value("statsd.port") == 8125
    with pytest.raises(ConfigError, match=r"did you mean statsd\.port"):
        config.value("statsd.prt")


def test_no_secret_reaches_an_environment_for_user_code() -> None:
    env = {
        "ROOST__DATABASE__URL": "postgresql://me:secret@db/roost",
        "ROOST__DATABASE__URL_FILE": "/secret",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "PATH": "/bin",
    }
    assert without_secrets(env) == {"PATH": "/bin"}


def test_a_secret_is_never_quoted_by_an_error(tmp_path: Path) -> None:
    (tmp_path / "roost.toml").write_text("[database]\nurl = 5432\n")
    with pytest.raises(ConfigError, match=r"database\.url = \*\*\* in"):
        load_config(env_of(tmp_path))


def test_reading_the_configuration_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from roost.support.config import load_config; load_config();"
        "print([m for m in ('sqlalchemy','click','asyncio','anyio','tomllib','zoneinfo','difflib')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"ROOST_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
