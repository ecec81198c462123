"""Encryption at rest: Fernet over the keys in ``security.encryption_key``.

The first key encrypts, every key decrypts, so a key is replaced without a moment in which
something cannot be read. Only daemons and commands come here, never a process that runs user
code; ``cryptography`` is imported when the first value is encrypted or decrypted, because it costs
a start 50 ms that most starts need not pay.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING

from roost.exceptions import ConfigError, DecryptionError, RoostException
from roost.support.config import Config
from roost.support.sealed import is_sealed

if TYPE_CHECKING:
    from cryptography.fernet import Fernet, MultiFernet

__all__ = ["KEY_FILE", "Keyring", "create_key_file", "key_file", "keyring_of", "new_key"]

KEY_FILE = "encryption.key"
_SETTING = "security.encryption_key"


def new_key() -> str:
    """A fresh Fernet key: 32 random bytes in url-safe base64."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def key_file(config: Config) -> Path:
    """The file that holds the keys where the setting holds none."""
    return config.home / KEY_FILE


def create_key_file(path: Path) -> bool:
    """Write a new key to ``path``, readable by its owner alone; False if the file exists.

    A file that exists is never touched: what was encrypted with its key could not be read again.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return False
    with open(descriptor, "w") as out:
        out.write(new_key() + "\n")
        out.flush()
        os.fsync(out.fileno())
    return True


def keyring_of(config: Config) -> Keyring:
    """The keys of a configuration; nothing is read or imported yet."""
    text = config.security.encryption_key
    origin = str(config.origins[_SETTING])
    return Keyring(text, origin) if text else Keyring("", origin, key_file(config))


class Keyring:
    """Encrypts and decrypts texts. May be used from several threads.

    Args:
        text: the keys, newest first, separated by commas.
        origin: where they came from, for errors.
        file: read instead, and again whenever it has changed; a missing one means no key.
    """

    def __init__(self, text: str = "", origin: str = "", file: Path | None = None) -> None:
        self._text = text
        self._origin = origin
        self._file = file
        self._stamp: tuple[int, ...] | None = None
        self._made: tuple[Fernet, MultiFernet] | None = None

    def encrypt(self, text: str) -> str:
        """``text`` under the newest key.

        Raises:
            ConfigError: there is no key, or it is none.
            RoostException: ``text`` holds lone surrogates.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError:
            raise RoostException(
                "the value is not text: it holds bytes that are no UTF-8"
            ) from None
        return self._ready()[0].encrypt(data).decode()

    def decrypt(self, token: str, what: str) -> str:
        """The text that was encrypted.

        Args:
            token: what :meth:`encrypt` gave.
            what: whose it is, for the error, e.g. ``Variable 'x'``.

        Raises:
            DecryptionError: no key fits.
            ConfigError: there is no key, or it is none.
        """
        from cryptography.fernet import InvalidToken  # see the module's text

        try:
            plain = self._ready()[1].decrypt(token.encode())
        except InvalidToken:
            raise DecryptionError(
                f"{what} cannot be decrypted with any key of {_SETTING}; add the key that it was "
                "written with, after the newest, or set it anew"
            ) from None
        except ConfigError as error:
            reason = str(error)
            if not self._parts():  # another one would not do
                reason = "there is no encryption key here: put back the one it was written with"
            raise DecryptionError(f"{what} is encrypted, but {reason}") from None
        return plain.decode()

    def seal(self, text: str) -> str:
        """JSON as it is stored: encrypted, but for what says nothing (``{}`` and ``null``).

        Raises:
            ConfigError: there is no key, or it is none.
        """
        return text if text in ("{}", "null") else self.encrypt(text)

    def unseal(self, text: str, what: str) -> str:
        """What :meth:`seal` was given; a text that is no token is as it was.

        Raises:
            DecryptionError: no key fits.
        """
        return self.decrypt(text, what) if is_sealed(text) else text

    def is_newest(self, token: str) -> bool:
        """Whether the newest key alone decrypts ``token``."""
        from cryptography.fernet import InvalidToken  # see the module's text

        try:
            self._ready()[0].decrypt(token.encode())
        except InvalidToken:
            return False
        return True

    def derived(self, purpose: str) -> list[bytes]:
        """A key of 32 bytes from each of the keys, newest first, for something else than Fernet.

        Nothing that is learnt of one tells of another, or of the key that it came from (one block
        of HKDF-Expand; the keys are random already).

        Raises:
            ConfigError: there is no key, or it is none.
        """
        self._ready()
        info = b"roost " + purpose.encode() + b"\x01"
        keys = [base64.urlsafe_b64decode(part.strip()) for part in self._parts()]
        return [hmac.digest(key, info, "sha256") for key in keys]

    def check(self) -> None:
        """Raise what :meth:`encrypt` would raise.

        Raises:
            ConfigError: there is no key, or it is none.
        """
        self._ready()

    def _parts(self) -> list[str]:
        return [part for part in self._text.replace("\n", ",").split(",") if part.strip()]

    def _ready(self) -> tuple[Fernet, MultiFernet]:
        """The newest key, and all of them."""
        if self._file is not None:
            self._read(self._file)
        made = self._made
        if made is None:
            self._made = made = self._make()
        return made

    def _read(self, file: Path) -> None:
        """Take the file's keys if it is not the one that was read last."""
        try:
            found = file.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._text, self._made = file.read_text(), None
                self._origin = f"file {file}"
                self._stamp = stamp
        except FileNotFoundError:
            self._text, self._made, self._stamp = "", None, None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ConfigError(
                f"the encryption key {file} cannot be read: {reason}; mend its permissions"
            ) from None

    def _make(self) -> tuple[Fernet, MultiFernet]:
        from cryptography.fernet import Fernet, MultiFernet  # see the module's text

        parts = self._parts()
        if not parts:
            raise ConfigError(
                "there is no encryption key; `roost config init` makes one, or set "
                f"{_SETTING} where this runs"
            )
        fernets = []
        for number, part in enumerate(parts, 1):
            try:
                fernets.append(Fernet(part.strip()))
            except (ValueError, binascii.Error):
                raise ConfigError(
                    f"{_SETTING} ({self._origin}): key {number} of {len(parts)} is not 32 bytes "
                    "in url-safe base64; `roost config init` in an empty home makes a right one"
                ) from None
        return fernets[0], MultiFernet(fernets)
