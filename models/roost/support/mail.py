"""Sending e-mail: the ``[smtp]`` section, and the one place that talks to a mail server.

``smtplib`` and ``email`` are imported when a mail is sent: they cost more than the start of a task.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from roost.exceptions import MailError
from roost.support.section import SECRET, Section

if TYPE_CHECKING:
    import smtplib
    import ssl
    from email.message import EmailMessage

__all__ = ["Smtp", "addresses", "send_email"]


class Smtp(Section, frozen=True):
    """The mail server for failure mails, SLA mails and the EmailOperator."""

    host: Annotated[str, Meta(description="Name or address of the mail server.")] = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535, description="Its port; often 25, 465 or 587.")] = 25
    user: Annotated[str, Meta(description="Name to log in with; empty: no login.")] = ""
    password: Annotated[
        str, Meta(extra=SECRET, description="Password to log in with. Tasks get it on request.")
    ] = ""
    ssl: Annotated[bool, Meta(description="Whether the server expects TLS from the start.")] = False
    starttls: Annotated[
        bool, Meta(description="Whether to insist on STARTTLS before anything is sent.")
    ] = False
    ca: Annotated[
        str,
        Meta(description="Certificates that are trusted, a PEM file; empty: those of the system."),
    ] = ""
    sender: Annotated[str, Meta(description="Sender of every mail.")] = "roost@localhost"
    timeout: Annotated[
        float, Meta(gt=0, description="Seconds to wait for the server to answer.")
    ] = 30.0


def addresses(value: str | Iterable[str] | None) -> list[str]:
    """Addresses as a list; one text may hold several, between commas or semicolons."""
    texts = [value] if isinstance(value, str) else list(value or ())
    parts = [part.strip() for text in texts for part in text.replace(";", ",").split(",")]
    return [part for part in parts if part]


def send_email(
    to: str | Iterable[str],
    subject: str,
    html: str,
    *,
    smtp: Smtp,
    cc: str | Iterable[str] | None = None,
    bcc: str | Iterable[str] | None = None,
    files: Iterable[str | os.PathLike[str]] | None = None,
) -> None:
    """Send one mail.

    Args:
        to: one address, or several; ``cc`` and ``bcc`` likewise.
        subject: one line.
        html: the body, HTML.
        smtp: the mail server.
        cc: who else gets it.
        bcc: who else gets it without the others seeing that.
        files: paths of attachments.

    Raises:
        MailError: it was not accepted, or not by every recipient; says why and what to mend.
    """
    everybody = list(dict.fromkeys([*addresses(to), *addresses(cc), *addresses(bcc)]))
    if not everybody:
        raise MailError(f"mail {subject!r}: there is nobody to send it to; name an address")
    try:
        message = _message(smtp.sender, addresses(to), addresses(cc), subject, html, files or ())
    except (ValueError, OSError) as error:
        raise MailError(f"mail {subject!r} cannot be made: {error}") from None
    _send(smtp, message, everybody)


def _message(
    sender: str,
    to: list[str],
    cc: list[str],
    subject: str,
    html: str,
    files: Iterable[str | os.PathLike[str]],
) -> EmailMessage:
    import mimetypes  # see the module's docstring
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    message = EmailMessage()
    message["From"] = sender
    message["To"] = ", ".join(to)
    if cc:
        message["Cc"] = ", ".join(cc)
    message["Subject"] = subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="roost.invalid")
    message.set_content(html, subtype="html")
    for file in files:
        name = os.path.basename(file)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        main, _, sub = kind.partition("/")
        with open(file, "rb") as data:
            message.add_attachment(data.read(), maintype=main, subtype=sub, filename=name)
    return message


def _send(smtp: Smtp, message: EmailMessage, everybody: list[str]) -> None:
    import smtplib  # see the module's docstring
    import ssl

    where = f"mail server {smtp.host}:{smtp.port}"
    try:
        with _connect(smtp) as server:
            if smtp.starttls and not smtp.ssl:
                server.starttls(context=_context(smtp))
            if smtp.user:
                server.login(smtp.user, smtp.password)
            refused = server.send_message(message, smtp.sender, everybody)
    except smtplib.SMTPAuthenticationError as error:
        raise MailError(
            f"{where} refuses user {smtp.user!r} ({_answer(error)}): check smtp.user and "
            "smtp.password"
        ) from None
    except smtplib.SMTPNotSupportedError as error:
        raise MailError(
            f"{where} cannot do what is asked ({error}): check smtp.starttls, smtp.ssl and "
            "smtp.user"
        ) from None
    except smtplib.SMTPRecipientsRefused as error:
        raise MailError(f"{where} refuses every recipient: {_reasons(error.recipients)}") from None
    except smtplib.SMTPResponseException as error:
        raise MailError(f"{where} refuses the mail: {_answer(error)}") from None
    except ssl.SSLError as error:
        raise MailError(
            f"{where}: no secure connection ({error.reason or error}): check smtp.ssl, "
            "smtp.starttls, smtp.port and smtp.ca"
        ) from None
    except (smtplib.SMTPException, OSError) as error:
        raise MailError(
            f"{where} cannot be reached ({error}): check smtp.host, smtp.port and smtp.ssl"
        ) from None
    if refused:
        raise MailError(f"{where} took the mail, but not for {_reasons(refused)}")


def _connect(smtp: Smtp) -> smtplib.SMTP:
    import smtplib  # see the module's docstring

    if smtp.ssl:
        return smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=smtp.timeout, context=_context(smtp))
    return smtplib.SMTP(smtp.host, smtp.port, timeout=smtp.timeout)


def _context(smtp: Smtp) -> ssl.SSLContext:
    import ssl  # see the module's docstring

    try:
        return ssl.create_default_context(cafile=smtp.ca or None)
    except OSError as error:
        raise MailError(f"smtp.ca: {smtp.ca} cannot be used: {error}") from None


def _answer(error: smtplib.SMTPResponseException) -> str:
    return f"{error.smtp_code} {_text(error.smtp_error)}"


def _reasons(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{who} ({code} {_text(text)})" for who, (code, text) in refused.items())


def _text(answer: bytes | str) -> str:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    return " ".join(text.split())
