"""A second net under what commands print of tasks: every secret that the database holds.

A task hides what it was given itself; what a program that it started wrote into the log, or what
it found in another way, is hidden here.
"""

from __future__ import annotations

import json
from contextlib import suppress

from roost.exceptions import RoostException
from roost.models.engine import Tx
from roost.models.queries.connections import list_connections
from roost.models.queries.variables import list_variables
from roost.support import masking
from roost.support.config import Config
from roost.support.crypto import keyring_of

__all__ = ["hide_stored_secrets"]


def hide_stored_secrets(tx: Tx, config: Config) -> None:
    """Have this process hide the passwords and sensitive values in the database.

    What cannot be decrypted cannot be hidden, and is no error here.
    """
    masking.use_names(config.security.sensitive_names)
    keys = keyring_of(config)
    for variable in list_variables(tx):
        with suppress(RoostException, ValueError):
            sensitive = masking.is_sensitive(variable.key)
            value = variable.plain(keys)
            if sensitive:
                masking.register(value)
            elif value[:1] in ("{", "["):  # there may be a secret by a name in its JSON
                masking.mask_secret(json.loads(value), "")
    for row in list_connections(tx):
        with suppress(RoostException, ValueError):
            record = row.plain(keys)
            masking.register(record.password or "")
            if record.extra:
                masking.mask_secret(json.loads(record.extra), "")
