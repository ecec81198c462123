"""run_as_user: a task process becomes another user before any code of the task runs.

The log file and the line to the supervisor are open by then, so neither needs that user's rights.
"""

from __future__ import annotations

import os
import socket

from roost.exceptions import RoostException
from roost.support.osproc import die_with_parent

__all__ = ["become"]


def become(user: str, parent: int) -> None:
    """Switch this process, for good, to the ids, groups and environment of ``user``.

    Args:
        user: a login name.
        parent: pid of the process that this one must not outlive.

    Raises:
        RoostException: there is no such user, or this process may not switch; says what to mend.
    """
    import pwd  # only such tasks pay for it

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise RoostException(
            f"run_as_user {user!r}: host {socket.gethostname()} has no such user; create it on "
            "every worker that takes this queue, or mend the task"
        ) from None
    if entry.pw_uid != os.geteuid():
        try:
            os.initgroups(user, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        except PermissionError:
            raise RoostException(
                f"run_as_user {user!r}: the worker runs as uid {os.geteuid()}, which may not "
                "switch users; start the worker as root, or leave run_as_user out"
            ) from None
        # The kernel forgets it when a process changes its user.
        die_with_parent(parent)
    os.environ.update(HOME=entry.pw_dir, USER=user, LOGNAME=user, SHELL=entry.pw_shell)
