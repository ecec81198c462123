"""BashOperator: a shell command as a task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Mapping
from contextlib import nullcontext, suppress
from typing import IO, Any

from roost.dag.interrupt import holding
from roost.dag.operator import BaseOperator
from roost.exceptions import DagError, RoostException, SkipTask
from roost.support.osproc import die_with_parent

__all__ = ["BashOperator"]

# By these the worker finds what a task leaves behind (roost.worker.marks).
_MARKS = ("ROOST_WORKER_TOKEN", "ROOST_TASK_MARK")
_PIECE = 1 << 16
_LAST_LINE = 1 << 18
# From SIGTERM to SIGKILL when the task is stopped.
_GRACE_S = 5.0


class BashOperator(BaseOperator):
    """Run ``bash -c bash_command``, its output line by line into the task's log.

    The last line of output is the task's return value. The command runs in a process group of
    its own, which is ended as a whole when the task is stopped.

    What a template puts into ``bash_command`` is read by the shell: never place values there
    that others can choose, such as ``dag_run.conf``. Give them by ``env`` and write ``"$NAME"``.

    Args:
        bash_command: the command, templated; a name that ends in ``.sh`` or ``.bash`` and is a
            file beside the DAG file or in ``template_searchpath`` stands for its rendered text.
        env: environment of the command, templated. None: that of the task.
        append_env: add ``env`` to the environment of the task instead of replacing it.
        output_encoding: of the output; bytes that do not fit are shown escaped.
        skip_on_exit_code: exit code, or several, that skip the task; None: none does.
        cwd: folder to run in, templated; default: an empty temporary one.
        output_processor: applied to the last line before it is returned.
        **kwargs: see BaseOperator.
    """

    template_fields = ("bash_command", "env", "cwd")
    template_ext = (".sh", ".bash")

    def __init__(
        self,
        *,
        bash_command: Any,
        env: Mapping[str, Any] | None = None,
        append_env: bool = False,
        output_encoding: str = "utf-8",
        skip_on_exit_code: int | Container[int] | None = 99,
        cwd: str | None = None,
        output_processor: Callable[[str], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(bash_command, str) and not bash_command.strip():
            raise DagError(f"task {self.task_id!r}: bash_command is empty")
        self.bash_command = bash_command
        self.env = dict(env) if env is not None else None
        self.append_env = append_env
        self.output_encoding = output_encoding
        self.skip_on_exit_code = skip_on_exit_code
        self.cwd = cwd
        self.output_processor = output_processor
        self._process: subprocess.Popen[bytes] | None = None

    def execute(self, context: dict[str, Any]) -> Any:
        """Run the command.

        Raises:
            SkipTask: it ended with ``skip_on_exit_code``.
            RoostException: it ended with another code than 0, or could not be started.
        """
        code, last = self.run_command(context)
        if code in self._skip_codes():
            raise SkipTask(f"the command ended with exit code {code}")
        if code != 0:
            how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
            raise RoostException(f"the command failed with {how}; its output is above")
        if last is not None and self.output_processor is not None:
            return self.output_processor(last)
        return last

    def run_command(self, context: dict[str, Any]) -> tuple[int, str | None]:
        """Run the command to its end; its exit code, negative for a signal, and its last line.

        Raises:
            RoostException: it could not be started.
        """
        if self.cwd is not None and not os.path.isdir(self.cwd):
            raise RoostException(f"cwd {self.cwd!r} is not a folder; create it first")
        place = (
            nullcontext(self.cwd)
            if self.cwd is not None
            else tempfile.TemporaryDirectory(prefix="roost-")
        )
        with place as folder:
            return self._run(folder, context)

    def on_kill(self) -> None:
        """End the whole process group: SIGTERM, then SIGKILL to what is left."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE_S
            # Looks without reaping: while its leader is not reaped, the group's number is ours.
            look = os.WEXITED | os.WNOHANG | os.WNOWAIT
            while os.waitid(os.P_PID, process.pid, look) is None and time.monotonic() < deadline:
                time.sleep(0.02)
        with suppress(ProcessLookupError, ChildProcessError):
            os.killpg(process.pid, signal.SIGKILL)

    def _run(self, folder: str | None, context: dict[str, Any]) -> tuple[int, str | None]:
        """Exit code and last line."""
        with holding() as mask:
            self._process = process = self._start(folder, context, mask)
        with process:
            try:
                last = self._stream(process)
            except BaseException:
                # Before the block's end, which waits for the command.
                self.on_kill()
                raise
        return process.returncode, last

    def _start(
        self, folder: str | None, context: dict[str, Any], mask: set[signal.Signals]
    ) -> subprocess.Popen[bytes]:
        parent = os.getpid()

        def prepare() -> None:
            """Runs between fork and exec."""
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            die_with_parent(parent)

        try:
            return subprocess.Popen(
                ["bash", "-c", str(self.bash_command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=self._environ(context),
                process_group=0,
                preexec_fn=prepare,
            )
        except (OSError, ValueError) as error:
            raise RoostException(f"bash could not be started: {error}") from error

    def _stream(self, process: subprocess.Popen[bytes]) -> str | None:
        """Copy the output to the log as it comes; its last line, None when there is none."""
        stream: IO[bytes] | None = process.stdout
        if stream is None:
            return None
        line = ""
        complete = True
        # A line without end arrives in pieces and is kept only up to a limit.
        while piece := stream.readline(_PIECE):
            text = piece.decode(self.output_encoding, "backslashreplace")
            sys.stdout.write(text)
            sys.stdout.flush()
            line = text if complete else (line + text)[:_LAST_LINE]
            complete = text.endswith("\n")
        return line.rstrip() if line else None

    def _environ(self, context: dict[str, Any]) -> dict[str, str]:
        given = {name: str(value) for name, value in (self.env or {}).items()}
        if self.env is None or self.append_env:
            base = dict(os.environ)
        else:
            base = {k: v for k, v in os.environ.items() if k in _MARKS}
        ti = context["ti"]
        about = {
            "ROOST_CTX_DAG_ID": ti.dag_id,
            "ROOST_CTX_TASK_ID": ti.task_id,
            "ROOST_CTX_RUN_ID": ti.run_id,
            "ROOST_CTX_TRY_NUMBER": str(ti.try_number),
            "ROOST_CTX_DISPATCH_ID": str(ti.dispatch_id),
            "ROOST_CTX_LOGICAL_DATE": context.get("ts", ""),
        }
        return {**base, **about, **given}

    def _skip_codes(self) -> Container[int]:
        codes = self.skip_on_exit_code
        return () if codes is None else (codes,) if isinstance(codes, int) else codes
