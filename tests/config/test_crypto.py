"""Encryption at rest: keys, where they come from, and what happens without the right one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.exceptions import ConfigError, DecryptionError, RoostException
from roost.support.config import load_config, user_environ
from roost.support.crypto import Keyring, create_key_file, keyring_of, new_key

KEY, OTHER = new_key(), new_key()
RING = Keyring(KEY)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_encrypted_is_read_back_and_is_not_to_be_seen(text: str) -> None:
    token = RING.encrypt(text)
    assert RING.decrypt(token, "it") == text
    assert len(text) < 4 or text not in token


def test_the_newest_key_encrypts_and_every_key_decrypts() -> None:
    old = Keyring(KEY).encrypt("x")
    both = Keyring(f"{OTHER}, {KEY}")
    assert both.decrypt(old, "it") == "x"
    assert not both.is_newest(old)
    new = both.encrypt("x")
    assert both.is_newest(new)
    assert Keyring(OTHER).decrypt(new, "it") == "x"


def test_a_wrong_key_names_the_row() -> None:
    with pytest.raises(DecryptionError) as caught:
        Keyring(OTHER).decrypt(RING.encrypt("x"), "Variable 'v'")
    assert str(caught.value) == (
        "Variable 'v' cannot be decrypted with any key of security.encryption_key; add the key "
        "that it was written with, after the newest, or set it anew"
    )


@pytest.mark.parametrize("text", ["", " , ", "\n"])
def test_no_key_is_an_error_that_names_the_remedy(text: str) -> None:
    with pytest.raises(ConfigError, match="no encryption key; `roost config init` makes one"):
        Keyring(text).encrypt("x")
    with pytest.raises(DecryptionError, match="Variable 'v' is encrypted, but there is no"):
        Keyring(text).decrypt("x", "Variable 'v'")


@pytest.mark.parametrize("text", ["short", f"{'x' * 43}=,{'y' * 44}!", "a b"])
def test_a_text_that_is_no_key_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="is not 32 bytes in url-safe base64") as caught:
        Keyring(text, "env ROOST__SECURITY__ENCRYPTION_KEY").encrypt("x")
    assert "ROOST__SECURITY__ENCRYPTION_KEY" in str(caught.value)
    assert text not in str(caught.value)


def test_a_value_that_is_no_text_is_refused() -> None:
    with pytest.raises(RoostException, match="bytes that are no UTF-8"):
        RING.encrypt("a\udcff")


def test_the_key_file_is_private_and_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "home" / "encryption.key"
    assert create_key_file(file)
    before = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert not create_key_file(file)
    assert file.read_text() == before


def test_a_changed_key_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "encryption.key"
    ring = Keyring(file=file)
    with pytest.raises(ConfigError, match="there is no encryption key"):
        ring.encrypt("x")
    file.write_text(KEY)
    old = ring.encrypt("x")
    file.write_text(f"{OTHER}\n{KEY}\n")
    assert ring.decrypt(old, "it") == "x"
    assert Keyring(OTHER).decrypt(ring.encrypt("y"), "it") == "y"
    file.unlink()
    with pytest.raises(DecryptionError, match="there is no encryption key"):
        ring.decrypt(old, "it")


def test_where_the_key_is_looked_for(tmp_path: Path) -> None:
    """The setting, wherever it was made, is stronger than the file in the home."""
    env = {"ROOST_HOME": str(tmp_path)}
    (tmp_path / "encryption.key").write_text(KEY)
    token = keyring_of(load_config(env)).encrypt("x")
    assert Keyring(KEY).decrypt(token, "it") == "x"

    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "security.encryption_key").write_text(OTHER + "\n")
    token = keyring_of(load_config({**env, "CREDENTIALS_DIRECTORY": str(credentials)})).encrypt("x")
    assert Keyring(OTHER).decrypt(token, "it") == "x"

    (tmp_path / "other").write_text(OTHER + "\n")
    by_file = {**env, "ROOST__SECURITY__ENCRYPTION_KEY_FILE": str(tmp_path / "other")}
    assert keyring_of(load_config(by_file)).decrypt(token, "it") == "x"


def test_a_process_that_runs_user_code_does_not_get_the_key() -> None:
    given = {"ROOST__SECURITY__ENCRYPTION_KEY": KEY, "ROOST__SECURITY__SENSITIVE_NAMES": "pin,zip"}
    config = load_config({"ROOST_HOME": "/nowhere", **given})
    found = user_environ(config, given)
    assert KEY not in found.values()
    assert found["ROOST__SECURITY__SENSITIVE_NAMES"] == "pin,zip"


@pytest.mark.parametrize(
    "module",
    ["roost.support.crypto", "roost.worker.daemon", "roost.cli.main", "roost.worker.zygote"],
)
def test_cryptography_is_loaded_by_its_first_use_only(module: str) -> None:
    code = f"import sys, {module}; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
