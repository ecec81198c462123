"""The settings that user code is loaded and run by, handed down as environment variables.

A process that runs user code reads no configuration file: the daemon that started it has put
here what counts, wherever it was set.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from roost.support.config import Config

__all__ = ["conf_overrides_params", "for_user_code", "ignore_syntax", "local_settings"]

_SYNTAX = "ROOST__CORE__DAG_IGNORE_FILE_SYNTAX"
_OVERRIDES = "ROOST__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS"
_LOCAL = "ROOST__CORE__LOCAL_SETTINGS"


def for_user_code(config: Config) -> dict[str, str]:
    """Environment variables for a process that runs user code."""
    return {
        "ROOST__CORE__DEFAULT_TIMEZONE": config.core.default_timezone,
        "ROOST__CORE__DEFAULT_TASK_RETRIES": str(config.core.default_task_retries),
        "ROOST__SECURITY__SENSITIVE_NAMES": ",".join(config.security.sensitive_names),
        "ROOST__CORE__DEFAULT_DEFERRABLE": str(config.core.default_deferrable).lower(),
        "ROOST__CORE__MAX_MAP_LENGTH": str(config.core.max_map_length),
        _SYNTAX: config.core.dag_ignore_file_syntax,
        _OVERRIDES: str(config.core.dag_run_conf_overrides_params).lower(),
        _LOCAL: str(config.core.local_settings),
    }


def ignore_syntax() -> Literal["regexp", "glob"]:
    """``core.dag_ignore_file_syntax``."""
    return "glob" if os.environ.get(_SYNTAX) == "glob" else "regexp"


def conf_overrides_params() -> bool:
    """``core.dag_run_conf_overrides_params``."""
    return os.environ.get(_OVERRIDES) != "false"


def local_settings() -> str:
    """``core.local_settings``; empty where nobody has passed it on."""
    return os.environ.get(_LOCAL, "")
