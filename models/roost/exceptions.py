"""Exceptions that users meet, catch or raise. Each message names the thing and the remedy."""

from __future__ import annotations

__all__ = [
    "ClusterPolicySkipDag",
    "ClusterPolicyViolation",
    "ConfigError",
    "CronError",
    "DagError",
    "DecryptionError",
    "DeferralTimeout",
    "FailTask",
    "MailError",
    "NotFound",
    "ParamError",
    "RoostException",
    "SchemaError",
    "SensorTimeout",
    "SkipTask",
    "TaskFailed",
    "TaskTerminated",
    "TaskTimeout",
    "TemplateError",
    "TriggerFailed",
    "ValueNotStorable",
    "ValueTooLarge",
    "VariableNotFound",
]


class RoostException(Exception):
    """Base of every error that Roost raises on purpose."""


class ConfigError(RoostException):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DecryptionError(RoostException):
    """A stored secret was encrypted with a key that is not among the configured ones."""


class DagError(RoostException):
    """A DAG file is wrong: a cycle, a duplicate task_id, an unknown rule, an unequal chain."""


class ClusterPolicyViolation(RoostException):
    """Raise in a cluster policy to refuse a DAG: its file has an import error that says why."""


class ClusterPolicySkipDag(RoostException):
    """Raise in a cluster policy to leave a DAG out, as if its file did not define it."""


class TemplateError(RoostException):
    """A templated field cannot be rendered; the message names field, text and line."""


class ParamError(DagError):
    """A value of a param breaks its schema, is missing, or the schema itself is wrong."""


class CronError(DagError):
    """A schedule is not a cron expression, or never occurs."""


class MailError(RoostException):
    """A mail was not accepted by the mail server, or the server cannot be reached."""


class SchemaError(RoostException):
    """The metadata database is missing, older or newer than this version of Roost."""


class NotFound(RoostException):
    """A DAG, run, task, pool, variable or connection that was named does not exist."""


class ValueNotStorable(RoostException):
    """A value is not JSON with typed tags, is too large, too deep, or holds NUL or NaN."""


class ValueTooLarge(ValueNotStorable):
    """A value has more bytes than there may be.

    Attributes:
        size: how many bytes it has, or at least has.
    """

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class SkipTask(RoostException):
    """Raise in a task to end it as ``skipped``."""


class FailTask(RoostException):
    """Raise in a task to end it as ``failed`` without another try."""


class SensorTimeout(FailTask):
    """A sensor waited for longer than its ``timeout``; it is not tried again."""


class TaskFailed(RoostException):
    """What a callback finds as ``context["exception"]``: why the try failed (H23).

    Attributes:
        traceback: everything that was kept of it; the message is its last line.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback or message


class TaskTimeout(RoostException):
    """The task ran longer than its ``execution_timeout`` (D7)."""


class TaskTerminated(BaseException):
    """The task was told to stop; not an Exception, so that a bare handler lets it pass."""


class TriggerFailed(RoostException):
    """The trigger of a deferred task raised, or ended without an event (D5)."""


class DeferralTimeout(TriggerFailed):
    """The event did not come within ``defer(timeout=…)`` (D6)."""


class VariableNotFound(NotFound, KeyError):
    """``Variable.get`` of a key that does not exist, without a default (S61)."""

    # KeyError would show the message in quotes, as if it were the key.
    __str__ = Exception.__str__
