"""The settings that user code is loaded and run by, handed down as environment variables.

A process that runs user code reads no configuration file: the daemon that started it has put
here what counts, wherever it was set.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from roost.support.config import Config

__all__ = [
    "conf_overrides_params",
    "default_deferrable",
    "for_user_code",
    "ignore_syntax",
    "local_settings",
    "max_xcom_size",
    "xcom_pickling",
]

_SYNTAX = "ROOST__CORE__DAG_IGNORE_FILE_SYNTAX"
_OVERRIDES = "ROOST__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS"
_LOCAL = "ROOST__CORE__LOCAL_SETTINGS"
_DEFERRABLE = "ROOST__CORE__DEFAULT_DEFERRABLE"
_NO = ("false", "no", "off", "0")

_XCOM_SIZE = "ROOST__CORE__MAX_XCOM_SIZE"
_XCOM_PICKLING = "ROOST__CORE__XCOM_PICKLING"
_XCOM_SIZE_DEFAULT = 1024 * 1024


def for_user_code(config: Config) -> dict[str, str]:
    """Environment variables for a process that runs user code."""
    return {
        "ROOST__CORE__DEFAULT_TIMEZONE": config.core.default_timezone,
        "ROOST__CORE__DEFAULT_TASK_RETRIES": str(config.core.default_task_retries),
        "ROOST__SECURITY__SENSITIVE_NAMES": ",".join(config.security.sensitive_names),
        _DEFERRABLE: str(config.core.default_deferrable).lower(),
        "ROOST__CORE__MAX_MAP_LENGTH": str(config.core.max_map_length),
        _XCOM_SIZE: str(config.core.max_xcom_size),
        _XCOM_PICKLING: str(config.core.xcom_pickling).lower(),
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


def default_deferrable() -> bool:
    """``core.default_deferrable`` (D24)."""
    return os.environ.get(_DEFERRABLE, "true").lower() not in _NO


def local_settings() -> str:
    """``core.local_settings``; empty where nobody has passed it on."""
    return os.environ.get(_LOCAL, "")


def max_xcom_size() -> int:
    """``core.max_xcom_size``, in bytes."""
    # Whatever user code makes of the variable: the worker has a limit of its own.
    text = os.environ.get(_XCOM_SIZE, "")
    return int(text) if text.isdecimal() else _XCOM_SIZE_DEFAULT


def xcom_pickling() -> bool:
    """``core.xcom_pickling``."""
    return os.environ.get(_XCOM_PICKLING) == "true"
