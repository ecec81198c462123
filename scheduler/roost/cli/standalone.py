"""``roost standalone``: a scheduler, a worker and a triggerer with one command."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import click
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from roost.cli.base import Command
from roost.cli.config import write_template
from roost.cli.fleet import Daemon, preload
from roost.cli.session import engine_of
from roost.cli.watch import ImportErrors, Pace, event_line
from roost.exceptions import ConfigError
from roost.migrations import api
from roost.models.engine import read
from roost.models.queries import secrets
from roost.models.queries.event_tail import EventTail
from roost.models.schema import require_schema
from roost.support.config import Config, load_config
from roost.support.crypto import create_key_file, key_file, keyring_of
from roost.support.notify import Notifier

__all__ = ["standalone"]

_KILL_AFTER_S = 3.0
_LOOK_S = 5.0


@click.command(cls=Command)
@click.option("-q", "--quiet", is_flag=True, help="Do not show tasks as they change.")
@click.pass_context
def standalone(ctx: click.Context, quiet: bool) -> None:
    """Run everything on one machine with one command.

    Makes the home folder, its configuration and its SQLite database if they are not there; a
    PostgreSQL database is migrated by `roost db migrate` only. Ctrl-C lets running tasks finish
    (worker.drain_timeout), a second one does not.
    """
    began = time.monotonic()
    config = load_config()
    _prepare(config)
    ctx.exit(_Standalone(config, quiet, began).run())


def _prepare(config: Config) -> None:
    try:
        _make_home(config)
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}; give a home that can be written: "
            f"ROOST_HOME=… roost standalone"
        ) from error
    engine = engine_of(config)
    try:
        if engine.dialect.name == "sqlite":
            api.migrate(engine)
        require_schema(engine)
        if engine.dialect.name == "sqlite":
            _make_key(config, engine)
        keyring_of(config).check()  # its worker and triggerer would end at once
    finally:
        engine.dispose()


def _make_key(config: Config, engine: Engine) -> None:
    """A first start makes the key; not one that has lost the key of what is encrypted already."""
    if config.security.encryption_key or key_file(config).exists():
        return
    with read(engine) as tx:
        lost = secrets.any_encrypted(tx)
    if lost:
        raise ConfigError(f"the key of what is encrypted is gone: restore {key_file(config)}")
    if create_key_file(key_file(config)):
        click.echo(f"  {'key':<10} {key_file(config)} made, encrypts what is secret: keep a copy")


def _make_home(config: Config) -> None:
    config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (config.dags_folder, config.log_folder):
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    write_template(config.home, force=False)


class _Standalone:
    """The parent: starts, watches, restarts and stops the fleet, and tells what happens."""

    def __init__(self, config: Config, quiet: bool, began: float) -> None:
        self._config = config
        self._quiet = quiet
        self._began = began
        self._daemons = [self._daemon(kind) for kind in ("scheduler", "triggerer", "worker")]
        self._import_errors = ImportErrors()
        self._announced = False
        self._stops = 0
        self._kill_at: float | None = None
        self._exit_code = 0

    def _daemon(self, kind: str) -> Daemon:
        return Daemon(
            kind, partial(_run, kind, self._config), self._config.log_folder / f"{kind}.log"
        )

    def run(self) -> int:
        """Run until a signal; gives the exit code."""
        preload()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._engine: Engine = engine_of(self._config)
        self._tail: EventTail | None = None
        with ExitStack() as stack:
            stack.callback(self._engine.dispose)
            self._pace = stack.enter_context(Pace(self._config.run_dir, _LOOK_S))
            for daemon in self._daemons:
                stack.callback(daemon.close)
            self._show_places()
            self._look()
            for daemon in self._daemons:
                self._start(daemon)
            while any(daemon.pid or daemon.restart_at for daemon in self._daemons):
                self._turn()
            self._look()
        click.echo("stopped")
        return self._exit_code

    # -- one turn ------------------------------------------------------------------------------

    def _turn(self) -> None:
        watched = [self._wake, *(bell.fileno() for bell in self._pace.sockets)]
        watched += [daemon.notices.fileno() for daemon in self._daemons]
        watched += [daemon.handle for daemon in self._daemons if daemon.pid]
        ready, _, _ = select.select(watched, [], [], self._pause())
        if self._wake in ready:
            self._obey()
        for daemon in self._daemons:
            if daemon.hear():
                click.echo(f"  {daemon.kind:<10} pid {daemon.pid}, log {daemon.log}")
            if daemon.pid and daemon.handle in ready:
                self._ended(daemon)
        self._pace.heard()
        self._announce()
        self._look()
        self._act_when_due()

    def _pause(self) -> float:
        moments = [daemon.restart_at for daemon in self._daemons if daemon.restart_at]
        moments += [self._kill_at] if self._kill_at else []
        pause = self._pace.next_pause()
        return max(0.0, min([pause, *(moment - time.monotonic() for moment in moments)]))

    def _act_when_due(self) -> None:
        now = time.monotonic()
        for daemon in self._daemons:
            if daemon.restart_at and now >= daemon.restart_at:
                self._start(daemon)
        if self._kill_at and now >= self._kill_at:
            self._kill_at = None
            for daemon in self._daemons:
                daemon.send(signal.SIGKILL)

    def _start(self, daemon: Daemon) -> None:
        self._engine.dispose()
        daemon.start(self._close_in_child)

    def _close_in_child(self) -> None:
        self._pace.__exit__(None, None, None)
        os.close(self._wake)
        os.close(self._waker)
        for other in self._daemons:
            if other.handle >= 0:
                os.close(other.handle)

    # -- what is told --------------------------------------------------------------------------

    def _show_places(self) -> None:
        url = self._engine.url.render_as_string(hide_password=True)
        for name, value in (
            ("home", self._config.home),
            ("database", url),
            ("dags", self._config.dags_folder),
            ("logs", self._config.log_folder),
        ):
            click.echo(f"  {name:<10} {value}")

    def _announce(self) -> None:
        if not self._announced and all(daemon.ready for daemon in self._daemons):
            self._announced = True
            took = time.monotonic() - self._began
            click.echo(f"ready after {took:.1f} s; Ctrl-C stops")
            Notifier().ready("standalone")

    def _look(self) -> None:
        """Print what moved since the last look."""
        if self._quiet:
            return
        began = time.monotonic()
        try:
            with read(self._engine) as tx:
                if self._tail is None:
                    self._tail = EventTail(tx)
                events: list[Any] = self._tail.new(tx)
                broken = self._import_errors.new(tx)
        except DBAPIError:
            return  # the daemons tell of it in their logs; the next look finds all of it
        for line in filter(None, (event_line(row, with_run=True) for row in events)):
            click.echo(line)
        for line in broken:
            click.echo(line)
        if events:
            self._pace.moved(time.monotonic() - began)

    # -- starts and stops ----------------------------------------------------------------------

    def _ended(self, daemon: Daemon) -> None:
        pid, never_ready = daemon.pid, not daemon.ready
        how = daemon.reap()
        if self._stops:
            daemon.restart_at = None
            self._stop_rest(daemon)
            return
        if never_ready and not self._announced:
            # It cannot work as it is set up: no use in trying again.
            click.echo(f"roost: {daemon.kind} {how}: {daemon.last_words()}", err=True)
            daemon.restart_at = None
            self._exit_code = 2
            self._stop()
            return
        click.echo(f"{daemon.kind} (pid {pid}) {how}; starting it again, log {daemon.log}")

    def _obey(self) -> None:
        asked = os.read(self._wake, 64)
        for _ in asked:
            self._stop()

    def _stop(self) -> None:
        """First: let tasks finish. Second: end at once. Third: kill."""
        self._stops += 1
        for daemon in self._daemons:
            daemon.restart_at = None
        if self._stops == 1:
            Notifier().stopping()
            drain = self._config.worker.drain_timeout
            click.echo(f"stopping: running tasks have {drain:g} s to finish; once more ends them")
            for daemon in self._daemons:
                # The scheduler goes last, so that it settles what the others still report.
                if daemon.kind != "scheduler" or not self._others():
                    daemon.send(signal.SIGTERM)
        elif self._stops == 2:
            click.echo("stopping at once")
            for daemon in self._daemons:
                daemon.send(signal.SIGTERM)
            self._kill_at = time.monotonic() + _KILL_AFTER_S
        else:
            for daemon in self._daemons:
                daemon.send(signal.SIGKILL)

    def _others(self) -> bool:
        return any(daemon.pid for daemon in self._daemons if daemon.kind != "scheduler")

    def _stop_rest(self, ended: Daemon) -> None:
        if ended.kind != "scheduler" and not self._others():
            for daemon in self._daemons:
                daemon.send(signal.SIGTERM)


def _run(kind: str, config: Config) -> int:
    """The entry point of a daemon, in its own process."""
    from roost.scheduler.daemon import run_scheduler  # loaded by preload(), not by this module
    from roost.triggerer.daemon import run_triggerer
    from roost.worker.daemon import run_worker

    if kind == "scheduler":
        return run_scheduler(config)
    if kind == "triggerer":
        return run_triggerer(config)
    return run_worker(config, config.worker.queues, config.worker.slots)
