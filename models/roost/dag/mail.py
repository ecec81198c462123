"""E-mail for code that runs in a task process: the settings come from the worker on request."""

from __future__ import annotations

import os
from collections.abc import Iterable

from roost.dag import runtime
from roost.exceptions import RoostException
from roost.support import mail, masking
from roost.support.mail import Smtp
from roost.support.task_requests import MailSettings

__all__ = ["send_email"]


def send_email(
    to: str | Iterable[str],
    subject: str,
    html: str,
    *,
    cc: str | Iterable[str] | None = None,
    bcc: str | Iterable[str] | None = None,
    files: Iterable[str | os.PathLike[str]] | None = None,
    config: Smtp | None = None,
) -> None:
    """Send one mail through the server of the ``[smtp]`` section.

    Args:
        to: one address, or several; ``cc`` and ``bcc`` likewise.
        subject: one line.
        html: the body, HTML.
        cc: who else gets it.
        bcc: who else gets it without the others seeing that.
        files: paths of attachments.
        config: another mail server than that of the configuration.

    Raises:
        MailError: it was not accepted, or not by every recipient; says why and what to mend.
        RoostException: no task is running here, and no ``config`` was given.
    """
    if config is None:
        config = runtime.ask(MailSettings(), "the mail server").smtp
        if config is None:
            raise RoostException("the mail server: this supervisor does not know of one")
        masking.register(config.password)
    mail.send_email(to, subject, html, smtp=config, cc=cc, bcc=bcc, files=files)
