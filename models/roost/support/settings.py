"""The one table of settings: a struct per section, a field per key.

The annotation holds the type and its limits, ``description`` the documentation that ``roost
config list`` and docs/configuration.md show, :data:`~roost.support.section.SECRET`
hides a value from listings. Its rows, for whoever goes through all settings, are
:mod:`roost.support.setting_rows`; reading the files and the environment is
:mod:`roost.support.config`'s part.

Durations are seconds (fractions allowed). ``$ROOST_HOME`` in a path or URL is the home folder;
a relative path is relative to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from roost.support.mail import Smtp
from roost.support.section import SECRET as _SECRET
from roost.support.section import Section as _Section

__all__ = [
    "SECTIONS",
    "Core",
    "Database",
    "Logging",
    "Scheduler",
    "Security",
    "Smtp",
    "Statsd",
    "Triggerer",
    "Worker",
]


class Core(_Section, frozen=True):
    """What all daemons share."""

    dags_folder: Annotated[
        Path, Meta(description="Folder that is searched, with its subfolders, for DAG files.")
    ] = Path("$ROOST_HOME/dags")
    executor: Annotated[
        str,
        Meta(
            description="What runs the tasks: `local` (workers, in parallel), `sequential` "
            "(workers, one task at a time) or `package.module:Class`."
        ),
    ] = "local"
    parallelism: Annotated[
        int,
        Meta(ge=1, description="Most task instances queued or running at once, over all DAGs."),
    ] = 32
    default_timezone: Annotated[
        str, Meta(description="IANA time zone for a start_date or a cron that names none.")
    ] = "UTC"
    default_deferrable: Annotated[
        bool,
        Meta(
            description="Whether operators and sensors that can wait without a process do so when "
            "their DAG file does not say."
        ),
    ] = True
    dags_are_paused_at_creation: Annotated[
        bool, Meta(description="Whether a DAG seen for the first time starts out paused.")
    ] = False
    default_task_retries: Annotated[
        int, Meta(ge=0, le=32766, description="`retries` of a task that does not say.")
    ] = 0
    max_task_retry_delay: Annotated[
        float,
        Meta(
            gt=0,
            le=31_536_000,
            description="Longest delay that `retry_exponential_backoff` grows to, in seconds.",
        ),
    ] = 86_400.0
    check_slas: Annotated[bool, Meta(description="Whether misses of `sla` are looked for.")] = True
    dag_discovery_safe_mode: Annotated[
        bool,
        Meta(
            description="Import only files whose bytes contain `dag` and (`roost` or `airflow`), "
            "in any case; false imports every .py file."
        ),
    ] = True
    max_map_length: Annotated[
        int, Meta(ge=1, description="Most instances of one mapped task or group in a run.")
    ] = 1024
    dag_ignore_file_syntax: Annotated[
        Literal["regexp", "glob"],
        Meta(
            description="How `.roostignore` and `.airflowignore` are read: a regular expression a "
            "line, or the patterns of `.gitignore`."
        ),
    ] = "regexp"
    dag_run_conf_overrides_params: Annotated[
        bool, Meta(description="Whether a run's conf replaces the values of `params`.")
    ] = True
    local_settings: Annotated[
        Path,
        Meta(
            description="Python file with the cluster policy: `task_policy` (or `policy`), "
            "`dag_policy`, `task_instance_mutation_hook`. It need not exist."
        ),
    ] = Path("$ROOST_HOME/config/roost_local_settings.py")
    max_xcom_size: Annotated[
        int,
        Meta(
            ge=1024,
            le=32 * 1024 * 1024,
            description="Most bytes of one XCom as it is stored; a larger one fails its task.",
        ),
    ] = 1024 * 1024
    xcom_pickling: Annotated[
        bool,
        Meta(
            description="Whether a task may push what JSON does not hold, pickled. Whoever can "
            "write an XCom then runs code in the tasks that read it."
        ),
    ] = False


class Database(_Section, frozen=True):
    """The metadata database."""

    url: Annotated[
        str,
        Meta(
            extra=_SECRET,
            description="`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST:PORT/NAME`.",
        ),
    ] = "sqlite:///$ROOST_HOME/roost.db"
    sqlite_synchronous: Annotated[
        Literal["off", "normal", "full"],
        Meta(
            description="SQLite's `synchronous` pragma. `normal` survives a killed process, "
            "`full` a power cut too, with an fsync for each transaction."
        ),
    ] = "full"


class Security(_Section, frozen=True):
    """Secrets: how they are stored, and what is hidden in logs and listings."""

    encryption_key: Annotated[
        str,
        Meta(
            extra=_SECRET,
            description="Fernet key of all that is encrypted, or several with commas, the "
            "newest first; without it `$ROOST_HOME/encryption.key` is read.",
        ),
    ] = ""
    sensitive_names: Annotated[
        tuple[str, ...],
        Meta(
            description="A Variable, or a field of a Connection, whose name holds one of these "
            "words is masked, besides those whose name holds password, secret, token and the like."
        ),
    ] = ()


class Scheduler(_Section, frozen=True):
    """`roost scheduler`."""

    poll_interval: Annotated[
        float,
        Meta(gt=0, description="Longest sleep between two looks at the database, in seconds."),
    ] = 5.0
    parse_interval: Annotated[
        float, Meta(gt=0, description="Seconds between two looks at the DAGs folder.")
    ] = 2.0
    parse_timeout: Annotated[
        float, Meta(gt=0, description="Seconds after which the import of a DAG file is killed.")
    ] = 30.0
    parse_memory_limit: Annotated[
        int,
        Meta(ge=0, description="Address space of the import of a DAG file in MiB; 0: no limit."),
    ] = 4096
    ageing: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="Seconds after which a task instance that others pass, by priority or "
            "because it needs several slots, is put first; one in eleven of a pool goes so.",
        ),
    ] = 60.0
    max_losses: Annotated[
        int,
        Meta(
            ge=0,
            description="How often a task instance may be lost with its worker and started anew "
            "before a loss costs it a try.",
        ),
    ] = 5
    asset_event_retention: Annotated[
        float,
        Meta(
            ge=0,
            le=315_360_000,
            description="Seconds for which an event of an asset is kept, also after the end of "
            "the run that was made for it; what a DAG still waits with is kept longer. 0: for "
            "ever.",
        ),
    ] = 7_776_000.0


class Worker(_Section, frozen=True):
    """`roost worker`."""

    slots: Annotated[
        int, Meta(ge=1, description="Most task processes of one worker at the same time.")
    ] = 32
    isolation: Annotated[
        Literal["process", "reuse"],
        Meta(
            description="`process`: each task has a process of its own. `reuse`: one process runs "
            "up to 100 tasks of the same version of a DAG file, one after the other; quicker, but "
            "what a task changes in modules the next one sees."
        ),
    ] = "process"
    queues: Annotated[
        tuple[str, ...], Meta(description="Queues whose tasks a worker takes without `-q`.")
    ] = ("default",)
    drain_timeout: Annotated[
        float,
        Meta(ge=0, description="Seconds a stopping worker lets its tasks finish before it ends."),
    ] = 30.0
    max_templates: Annotated[
        int,
        Meta(
            ge=1,
            description="Most DAG file versions kept preloaded at once, some 4 MB each; beyond "
            "it the one that has been unused longest is dropped.",
        ),
    ] = 128
    callback_timeout: Annotated[
        float,
        Meta(gt=0, description="Seconds after which a callback or a mail of a DAG is ended."),
    ] = 60.0
    template_idle: Annotated[
        float,
        Meta(gt=0, description="Seconds after which an unused, preloaded DAG file is dropped."),
    ] = 60.0


class Triggerer(_Section, frozen=True):
    """`roost triggerer`."""

    capacity: Annotated[
        int, Meta(ge=1, description="Most poll triggers of one triggerer at the same time.")
    ] = 10_000
    queues: Annotated[
        tuple[str, ...],
        Meta(description="Queues whose triggers a triggerer takes; empty: every queue."),
    ] = ()
    strike_after: Annotated[
        float,
        Meta(
            ge=0.2,
            le=5,
            description="Seconds for which a trigger may keep the others from turning before that "
            "is a strike; shorter times add up. The second strike moves it to a runner apart, the "
            "third fails its task.",
        ),
    ] = 1.0
    runner_memory_mb: Annotated[
        int,
        Meta(
            ge=0,
            description="MiB by which a runner may grow above what it takes when it is empty; "
            "with more it is replaced, and the trigger that does it is looked for. 0: no limit.",
        ),
    ] = 4096
    on_kill_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Seconds that `on_kill()` of a trigger may take, when a user has cleared "
            "or marked its task.",
        ),
    ] = 30.0
    stream_queue: Annotated[
        int,
        Meta(
            ge=2,
            le=1_000_000,
            description="Items of a shared stream that may wait for one watcher; with more, it "
            "fails and is begun anew.",
        ),
    ] = 1024
    stream_ack_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="Seconds that a watcher may take for one item of a shared stream, until "
            "the events that it makes of it are stored; then it fails and is begun anew.",
        ),
    ] = 300.0
    event_retention: Annotated[
        float,
        Meta(
            gt=0,
            le=31_536_000,
            description="Seconds for which an event from outside is kept while no task waits "
            "for it.",
        ),
    ] = 86_400.0
    callback_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="TCP port at which a triggerer takes events by `POST /events/TOKEN`; "
            "0: none.",
        ),
    ] = 0
    callback_host: Annotated[
        str, Meta(description="Address that it listens at; beyond loopback see the next setting.")
    ] = "127.0.0.1"
    callback_allow_remote: Annotated[
        bool,
        Meta(
            description="Whether `callback_host` may be an address that others reach; say so only "
            "where something in front speaks TLS, for a token in clear text is anybody's."
        ),
    ] = False
    callback_rate: Annotated[
        float,
        Meta(
            gt=0,
            le=10_000,
            description="Requests a second that it takes of one client, on average; of all "
            "together ten times as many.",
        ),
    ] = 20.0
    callback_url_base: Annotated[
        str,
        Meta(
            description="What URLs given to others begin with, e.g. `https://jobs.example.org`; "
            "empty: `http://HOST:PORT` of the settings above."
        ),
    ] = ""


class Statsd(_Section, frozen=True):
    """Metrics over UDP."""

    enabled: Annotated[bool, Meta(description="Whether metrics are sent.")] = False
    host: Annotated[str, Meta(description="Name or address of the statsd server.")] = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535, description="UDP port of the statsd server.")] = 8125
    prefix: Annotated[str, Meta(description="First part of every metric's name.")] = "roost"


class Logging(_Section, frozen=True):
    """Logs of daemons and of tasks."""

    folder: Annotated[Path, Meta(description="Folder of the task logs, one file for each try.")] = (
        Path("$ROOST_HOME/logs")
    )
    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(description="Least important message that the daemons write to stderr."),
    ] = "INFO"


SECTIONS: dict[str, type[_Section]] = {
    "core": Core,
    "database": Database,
    "security": Security,
    "scheduler": Scheduler,
    "worker": Worker,
    "triggerer": Triggerer,
    "statsd": Statsd,
    "logging": Logging,
    "smtp": Smtp,
}
