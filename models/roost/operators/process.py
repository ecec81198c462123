"""SubprocessOperator: a command as a task that holds no slot while it runs."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from roost.dag import knobs
from roost.dag.interrupt import holding
from roost.dag.operator import BaseOperator
from roost.exceptions import DagError, RoostException, SkipTask
from roost.support import detached
from roost.support.clock import duration_us, from_us, now_us
from roost.support.detached import Detached
from roost.support.user_settings import default_deferrable
from roost.triggers.process import ProcessTrigger

__all__ = ["SubprocessOperator"]

_GRACE_S = 5.0
_MOST_OUTPUT = 10 * 1024 * 1024


class SubprocessOperator(BaseOperator):
    """Start a command on the worker's host and wait for its end without a slot.

    The command runs in a session of its own, beyond the task's process: neither the end of that,
    nor a restart of the triggerer or the worker ends it, and a dispatch that is handed over anew
    comes back to it instead of starting another. Clearing or marking the task, and ``timeout``, end
    it and all that it started. Its output is shown in the task's log when it has ended; the last
    line is the task's return value.

    Worker and triggerer have to be on one host: where there are several, give the task a ``queue``
    that only those of one host serve.

    Args:
        command: a text, run by ``bash -c``, or a list of program and arguments, run as it is;
            templated. What a template puts into a text is read by the shell.
        env: environment of the command, templated. None: that of the task.
        append_env: add ``env`` to the environment of the task instead of replacing it.
        cwd: folder to run in, templated; default: an empty temporary one.
        timeout: how long it may run, a timedelta or seconds; then it is ended, and the try has
            failed. None: for ever.
        skip_on_exit_code: exit code, or several, that skip the task; None: none does.
        folder: where its files are kept while it runs, for worker and triggerer to see; default:
            ``processes`` in ``$ROOST_HOME``, or where that cannot be written, in the system's
            temporary folder.
        deferrable: False: wait in the task's process, which holds its slots; default:
            ``core.default_deferrable``.
        **kwargs: see BaseOperator.
    """

    template_fields = ("command", "env", "cwd")
    template_ext = (".sh", ".bash")

    def __init__(
        self,
        *,
        command: str | Sequence[str],
        env: Mapping[str, Any] | None = None,
        append_env: bool = False,
        cwd: str | None = None,
        timeout: timedelta | float | None = None,
        skip_on_exit_code: int | Container[int] | None = 99,
        folder: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not command:
            raise DagError(f"task {self.task_id!r}: command is empty")
        self.command = command
        self.env = dict(env) if env is not None else None
        self.append_env = append_env
        self.cwd = cwd
        self.timeout = knobs.maybe_duration(f"task {self.task_id!r}", "timeout", timeout)
        self.skip_on_exit_code = skip_on_exit_code
        self.folder = folder
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self._process: Detached | None = None

    def execute(self, context: dict[str, Any]) -> Any:
        """Start the command, or come back to it.

        Raises:
            RoostException: it cannot be started.
        """
        process = self._start(context)
        trigger = ProcessTrigger(*process, deadline=self._deadline(process))
        if self.deferrable:
            self.defer(trigger=trigger, method_name="execute_complete")
        timed_out = not _wait(process, trigger.deadline)
        if timed_out:
            detached.kill(process.token, _GRACE_S)
        return self.execute_complete(context, trigger.told(timed_out))

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """Show the output and judge the exit code.

        Raises:
            SkipTask: it ended with ``skip_on_exit_code``.
            RoostException: it ended with another code than 0, or was killed.
        """
        folder = self._folder(context)
        last = self._show(folder, event["tail"])
        if (token := detached.token_in(folder)) is not None:
            detached.kill(token, 0)  # what the command has left behind
        detached.remove(folder)
        with suppress(OSError):  # another try is there
            os.rmdir(os.path.dirname(folder))
        code = event["exit_code"]
        if event["timed_out"]:
            raise RoostException(f"the command was ended after its timeout, {self.timeout}")
        if code is None:
            raise RoostException("the command was killed, or its host restarted")
        codes = self.skip_on_exit_code
        if codes is not None and code in ((codes,) if isinstance(codes, int) else codes):
            raise SkipTask(f"the command ended with exit code {code}")
        if code != 0:
            how = f" (signal {code - 128})" if code > 128 else ""
            raise RoostException(f"the command failed with exit code {code}{how}")
        return last

    def on_kill(self) -> None:
        """The task is stopped before it has deferred: end the command."""
        if self._process is not None:
            detached.kill(self._process.token, _GRACE_S)
            detached.remove(self._process.folder)

    # -- the command

    def _start(self, context: dict[str, Any]) -> Detached:
        import shlex  # late, as other modules here: every DAG file would pay for them

        folder = self._folder(context)
        with holding() as mask:
            there = detached.find(folder)
            if there is not None and self._is_ours(there):
                self.log.info("coming back to process %d in %s", there.pid, folder)
                self._process = there
                return there
            self._end_earlier(os.path.dirname(folder))
            command = self.command
            words = ["bash", "-c", command] if isinstance(command, str) else list(command)
            self.log.info(
                "starting: %s", command if isinstance(command, str) else shlex.join(words)
            )
            try:
                self._process = detached.start(
                    [str(word) for word in words],
                    folder,
                    environ=self._environ(context),
                    cwd=self.cwd,
                    mask=mask,
                )
            except (OSError, ValueError) as error:
                raise RoostException(f"the command could not be started: {error}") from None
        self.log.info("process %d, its output in %s", self._process.pid, folder)
        return self._process

    def _is_ours(self, there: Detached) -> bool:
        """Whether to wait for what an earlier dispatch of this try has started.

        Raises:
            RoostException: it may still run, on another host.
        """
        import socket

        from roost.support.processes import host_id

        if there.host_id == host_id() or detached.exit_code(there.folder) is not None:
            return True
        if there.hostname == socket.gethostname():
            return False  # the host has been restarted since
        raise RoostException(
            f"an earlier dispatch has started the command on host {there.hostname!r}, where it may "
            "still run: give the task a queue that only workers of one host serve"
        )

    def _end_earlier(self, above: str) -> None:
        """End what earlier tries of this task instance have left, and what never began."""
        try:
            tries = os.listdir(above)
        except OSError:
            return
        for name in tries:
            folder = os.path.join(above, name)
            if (token := detached.token_in(folder)) is not None:
                detached.kill(token, _GRACE_S)
            detached.remove(folder)

    def _folder(self, context: dict[str, Any]) -> str:
        """Of this try; the same for each of its dispatches."""
        from hashlib import sha256

        ti, queued = context["ti"], context["dag_run"].queued_us
        who = f"{ti.dag_id}\n{ti.run_id}\n{queued}\n{ti.task_id}\n{ti.map_index}"
        name = f"{ti.task_id[:60]}-{sha256(who.encode()).hexdigest()[:16]}"
        return os.path.join(self.folder or _default_folder(), name, str(ti.try_number))

    def _deadline(self, process: Detached) -> datetime | None:
        if self.timeout is None:
            return None
        began = int(os.stat(os.path.join(process.folder, "id")).st_mtime * 1e6)
        return from_us(min(began, now_us()) + duration_us(self.timeout))

    def _show(self, folder: str, tail: str) -> str | None:
        """Copy the output to the log; its last line, None when there is none."""
        path = os.path.join(folder, detached.OUTPUT)
        try:
            size = os.stat(path).st_size
        except OSError:  # this worker is on another host, or somebody has cleared up
            text = tail
        else:
            if size > _MOST_OUTPUT:
                self.log.warning("the last %d of %d bytes of output:", _MOST_OUTPUT, size)
            text = detached.output_tail(folder, _MOST_OUTPUT).decode("utf-8", "backslashreplace")
        sys.stdout.write(text if not text or text.endswith("\n") else text + "\n")
        sys.stdout.flush()
        lines = text.rstrip().rsplit("\n", 1)
        return lines[-1] or None

    def _environ(self, context: dict[str, Any]) -> dict[str, str]:
        given = {name: str(value) for name, value in (self.env or {}).items()}
        ti = context["ti"]
        about = {
            "ROOST_CTX_DAG_ID": ti.dag_id,
            "ROOST_CTX_TASK_ID": ti.task_id,
            "ROOST_CTX_RUN_ID": ti.run_id,
            "ROOST_CTX_TRY_NUMBER": str(ti.try_number),
            "ROOST_CTX_LOGICAL_DATE": context.get("ts", ""),
        }
        whole = self.env is None or self.append_env
        return {**(os.environ if whole else {}), **about, **given}


def _default_folder() -> str:
    home = os.environ.get("ROOST_HOME", "")
    if home and os.access(home, os.W_OK):
        return os.path.join(home, "processes")
    import tempfile

    return os.path.join(tempfile.gettempdir(), f"roost-processes-{os.getuid()}")


def _wait(process: Detached, deadline: datetime | None) -> bool:
    """Until the command has ended; False when the deadline came first."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not process.is_alive():
            return True
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        left = None if deadline is None else (deadline - from_us(now_us())).total_seconds()
        return bool(poll.poll(None if left is None else max(0.0, left) * 1000))
    finally:
        os.close(handle)
