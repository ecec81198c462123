"""BashSensor: wait until a shell command succeeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roost.exceptions import RoostException
from roost.operators.bash import BashOperator
from roost.sensors.base import BaseSensorOperator

__all__ = ["BashSensor"]


class BashSensor(BaseSensorOperator):
    """Wait until ``bash -c bash_command`` ends with exit code 0.

    Args:
        bash_command: the command, templated; see BashOperator.
        env: its environment, templated. None: that of the task.
        output_encoding: of its output, which goes to the task's log.
        retry_exit_code: this code alone means "not yet", any other than 0 fails; None: every
            code but 0 means "not yet".
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("bash_command", "env")
    template_ext = (".sh", ".bash")

    def __init__(
        self,
        *,
        bash_command: str,
        env: Mapping[str, Any] | None = None,
        output_encoding: str = "utf-8",
        retry_exit_code: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bash_command = bash_command
        self.env = dict(env) if env is not None else None
        self.output_encoding = output_encoding
        self.retry_exit_code = retry_exit_code
        self._running: BashOperator | None = None

    def poke(self, context: dict[str, Any]) -> bool:
        """Run the command once."""
        self._running = BashOperator(
            task_id=self.label,
            bash_command=self.bash_command,
            env=self.env,
            output_encoding=self.output_encoding,
        )
        code, _ = self._running.run_command(context)
        if code != 0 and self.retry_exit_code is not None and code != self.retry_exit_code:
            raise RoostException(f"the command failed with exit code {code}; its output is above")
        return code == 0

    def on_kill(self) -> None:
        """End the command."""
        if self._running is not None:
            self._running.on_kill()
