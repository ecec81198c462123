"""Configuration: ``$ROOST_HOME/roost.toml``, overridden by credentials and the environment.

From weakest to strongest: the default in :mod:`roost.support.settings`; ``roost.toml``; a systemd
credential named ``section.key``; ``ROOST__SECTION__KEY_FILE``, a file that holds the value;
``ROOST__SECTION__KEY``; the caller's overrides (command line options, tests).

A key that is unknown anywhere, and a value of the wrong type, is a
:class:`~roost.exceptions.ConfigError` of one line that names the place and the remedy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from roost.exceptions import ConfigError
from roost.support import settings
from roost.support.setting_rows import Setting, all_settings
from roost.support.settings import SECTIONS
from roost.support.user_settings import for_user_code

__all__ = [
    "Config",
    "Origin",
    "home_from",
    "load_config",
    "user_environ",
    "without_secrets",
]

_PREFIX = "ROOST__"
_SQLITE = "sqlite:///"
_WORDS = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip


class Origin(NamedTuple):
    """Where a value came from: ``default``, ``file``, ``credential``, ``env`` or ``override``."""

    kind: str
    place: str

    def __str__(self) -> str:
        return f"{self.kind} {self.place}".rstrip()


_DEFAULT = Origin("default", "")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its type: ``config.core.parallelism`` is an int.

    Attributes:
        home: the absolute home folder.
        file: ``roost.toml`` in it, whether it exists or not.
        origins: where each ``section.key`` came from.
    """

    home: Path
    file: Path
    core: settings.Core
    database: settings.Database
    security: settings.Security
    scheduler: settings.Scheduler
    worker: settings.Worker
    triggerer: settings.Triggerer
    statsd: settings.Statsd
    logging: settings.Logging
    smtp: settings.Smtp
    origins: dict[str, Origin]

    @property
    def run_dir(self) -> Path:
        """Folder of the sockets and pid files of this home's daemons."""
        return self.home / "run"

    @property
    def dags_folder(self) -> Path:
        """Short for ``core.dags_folder``; absolute."""
        return self.core.dags_folder

    @property
    def log_folder(self) -> Path:
        """Short for ``logging.folder``; absolute."""
        return self.logging.folder

    def value(self, name: str) -> Any:
        """The value of ``section.key``.

        Raises:
            ConfigError: there is no such setting; the nearest name is suggested.
        """
        setting = _find(name, f"setting {name}")
        return getattr(getattr(self, setting.section), setting.key)


def home_from(environ: Mapping[str, str]) -> Path:
    """The absolute home folder: ``$ROOST_HOME``, or ``~/roost``."""
    return Path(os.path.abspath(os.path.expanduser(environ.get("ROOST_HOME") or "~/roost")))


def load_config(
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read the whole configuration and check all of it.

    Args:
        environ: instead of ``os.environ``.
        overrides: ``section.key`` to value, stronger than everything else; a text is read like
            an environment variable.

    Raises:
        ConfigError: a key is unknown or a value does not fit its setting.
    """
    env = os.environ if environ is None else environ
    home = home_from(env)
    file = home / "roost.toml"
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origins: dict[str, Origin] = {setting.name: _DEFAULT for setting in all_settings()}
    sources = [_from_file(file), _from_credentials(env), _from_environment(env)]
    override = Origin("override", "of the caller")
    sources.append((_find(name, name), raw, override) for name, raw in (overrides or {}).items())
    for source in sources:
        for setting, raw, origin in source:
            values[setting.section][setting.key] = _convert(setting, raw, origin)
            origins[setting.name] = origin
    for setting in all_settings():
        value = values[setting.section].get(setting.key, setting.default)
        values[setting.section][setting.key] = _settle(value, home)
    sections: dict[str, Any] = {name: SECTIONS[name](**values[name]) for name in SECTIONS}
    config = Config(home=home, file=file, origins=origins, **sections)
    _check(config)
    return config


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """A copy of the environment for a process that runs user code: no secret settings in it."""
    hidden = {"CREDENTIALS_DIRECTORY"}
    for setting in all_settings():
        if setting.secret:
            hidden |= {setting.variable, setting.variable + "_FILE"}
    return {name: value for name, value in environ.items() if name not in hidden}


def user_environ(config: Config, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the processes that run user code: parser, tasks, trigger runner.

    No secret settings, and what DAG files read of the configuration, wherever it was set.
    """
    return {
        **without_secrets(os.environ if environ is None else environ),
        "ROOST_HOME": str(config.home),
        **for_user_code(config),
    }


_Found = Iterator[tuple[Setting, Any, Origin]]


def _from_file(file: Path) -> _Found:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}; mend its permissions"
        ) from None
    import tomllib  # a start-up cost that only a home with a file pays

    try:
        tables = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
    origin = Origin("file", str(file))
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {section!r} stands outside a section; put it under [core]")
        for key, value in table.items():
            yield _find(f"{section}.{key}", str(file)), value, origin
        if not table:
            _check_section(section, str(file))


def _from_credentials(env: Mapping[str, str]) -> _Found:
    folder = env.get("CREDENTIALS_DIRECTORY")
    if not folder or not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        # A unit may load credentials that are none of ours.
        if name.partition(".")[0] in SECTIONS:
            path = os.path.join(folder, name)
            yield _find(name, path), _read(path, path), Origin("credential", path)


def _from_environment(env: Mapping[str, str]) -> _Found:
    for variable in sorted(name for name in env if name.startswith(_PREFIX)):
        place = f"environment variable {variable}"
        section, _, key = variable[len(_PREFIX) :].lower().partition("__")
        origin = Origin("env", variable)
        # No key ends in _file (a test holds that), so the suffix is never ambiguous.
        if key.endswith("_file"):
            setting = _find(f"{section}.{key.removesuffix('_file')}", place)
            if setting.variable in env:
                raise ConfigError(f"{variable} and {setting.variable} are both set; unset one")
            yield setting, _read(env[variable], place), origin
        else:
            yield _find(f"{section}.{key}", place), env[variable], origin


def _read(path: str, place: str) -> str:
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{place}: cannot read {path}: {reason}") from None


def _find(name: str, place: str) -> Setting:
    """The setting called ``section.key``, or an error that suggests the nearest."""
    known = {setting.name: setting for setting in all_settings()}
    if name in known:
        return known[name]
    section, _, key = name.partition(".")
    _check_section(section, place)
    nearest = _nearest(name, known)
    hint = f"did you mean {nearest}?" if nearest else "`roost config list` shows them all"
    raise ConfigError(f"{place}: there is no setting {key!r} in [{section}]; {hint}")


def _check_section(section: str, place: str) -> None:
    if section not in SECTIONS:
        nearest = _nearest(section, SECTIONS)
        hint = f"did you mean [{nearest}]?" if nearest else f"there are {', '.join(SECTIONS)}"
        raise ConfigError(f"{place}: there is no section [{section}]; {hint}")


def _nearest(name: str, known: Mapping[str, object]) -> str | None:
    import difflib  # only an error needs it

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.5)), None)


def _convert(setting: Setting, raw: Any, origin: Origin) -> Any:
    """``raw`` as the setting's type. Text (anything but TOML) is parsed, TOML is only checked."""
    value = raw
    if isinstance(raw, str) and origin.kind != "file":
        value = _parse(setting, raw.strip())
    try:
        converted = msgspec.convert(value, setting.type, dec_hook=_path)
        if setting.kind is float and not math.isfinite(converted):
            raise msgspec.ValidationError
    except msgspec.ValidationError:
        shown = "***" if setting.secret else repr(raw)
        raise ConfigError(
            f"{setting.name} = {shown} in {origin} is wrong; give {setting.expects}"
        ) from None
    return converted


def _parse(setting: Setting, text: str) -> Any:
    """The text of a variable, file or credential as the value it stands for, if it is one."""
    if setting.kind is bool:
        return _WORDS.get(text.lower(), text)
    if setting.kind in (int, float):
        try:
            return setting.kind(text)
        except ValueError:
            return text
    if setting.kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind is Path and isinstance(value, Path):
        return value
    raise msgspec.ValidationError("Expected a path")


def _settle(value: Any, home: Path) -> Any:
    """Fill in ``$ROOST_HOME`` and ``~``, and make a path absolute, also an SQLite URL's."""
    if isinstance(value, Path):
        return home / Path(str(value).replace("$ROOST_HOME", str(home))).expanduser()
    if isinstance(value, str):
        text = value.replace("$ROOST_HOME", str(home))
        path = text.removeprefix(_SQLITE)
        return f"{_SQLITE}{home / path}" if path != text and path[:1] not in ("/", ":") else text
    return value


def _check(config: Config) -> None:
    """What one setting alone cannot show to be wrong."""
    zone = config.core.default_timezone
    if zone != "UTC":
        import zoneinfo  # a start-up cost that only a named zone pays

        try:
            zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            origin = config.origins["core.default_timezone"]
            raise ConfigError(
                f"core.default_timezone = {zone!r} in {origin}: there is no such time zone; "
                "give an IANA name such as Europe/Berlin"
            ) from None
