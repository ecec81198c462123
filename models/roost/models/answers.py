"""Replies to what tasks and triggers read of the stores: Variables, Connections, XComs (H26)."""

from __future__ import annotations

from roost.models.engine import Tx
from roost.models.pull import Asking, Puller
from roost.models.queries import connections, variables
from roost.support.crypto import Keyring
from roost.support.task_requests import ConnectionGet, Reply, VariableGet, XComPull

__all__ = ["Reading", "ReadingAnswers"]

Reading = XComPull | VariableGet | ConnectionGet
"""Requests whose answers are the same for a task and for a trigger, and change nothing."""


class ReadingAnswers:
    """Makes such replies. Called from several threads.

    Args:
        keys: of Variables and Connections.
    """

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys
        self._puller = Puller()

    def reply(self, tx: Tx, asking: Asking, request: Reading) -> Reply:
        """The answer to one request.

        Raises:
            RoostException: an element of something that has none, or no key decrypts the value.
        """
        match request:
            case XComPull():
                return Reply(values=self._puller.pull(tx, asking, request))
            case VariableGet(key):
                return Reply(text=variables.get_variable(tx, key, self._keys))
            case ConnectionGet(conn_id):
                return Reply(connection=connections.pick_connection(tx, conn_id, self._keys))
