"""A real SMTP server in this process, with or without TLS, that keeps what it is sent."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from roost.support.mail import Smtp

__all__ = ["USER", "MailServer", "certificate", "mail_server"]

USER = ("roost", "open sesame")


class MailServer:
    """What the server took: ``mails`` as messages, ``envelopes`` as their recipients.

    Attributes:
        smtp: settings that reach it.
        refused: recipients that it refuses.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[list[str]] = []
        self.encrypted: list[bool] = []
        self.refused: set[str] = set()
        self.smtp = Smtp()

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Take a recipient or refuse it."""
        if address in self.refused:
            return f"550 5.1.1 {address} is unknown here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep a mail."""
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.envelopes.append(list(envelope.rcpt_tos))
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"


class _Controller(Controller):
    def __init__(self, handler: MailServer, tls: ssl.SSLContext | None, **options: Any) -> None:
        self._starttls = tls
        super().__init__(handler, hostname="127.0.0.1", port=0, **options)

    def factory(self) -> SMTP:
        with warnings.catch_warnings(action="ignore"):  # that a login needs no TLS here
            return SMTP(self.handler, tls_context=self._starttls, **self.SMTP_kwargs)

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]  # the base class would connect to 0
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def mail_server(
    *, tls: ssl.SSLContext | None = None, implicit: bool = False, login: bool = False
) -> Iterator[MailServer]:
    """A running server.

    Args:
        tls: the server's certificate; it offers STARTTLS then.
        implicit: TLS from the start instead.
        login: whether a client must log in, as :data:`USER`.
    """
    server = MailServer()
    controller = _Controller(
        server,
        None if implicit else tls,
        ssl_context=tls if implicit else None,
        auth_required=login,
        auth_require_tls=False,
        authenticator=_authenticate,
    )
    controller.start()
    try:
        server.smtp = Smtp(host="127.0.0.1", port=controller.port, timeout=10.0)
        yield server
    finally:
        controller.stop()


def _authenticate(
    server: Any, session: Any, envelope: Any, mechanism: str, data: Any
) -> AuthResult:
    assert isinstance(data, LoginPassword)
    given = (data.login.decode(), data.password.decode())
    return AuthResult(success=given == USER, handled=False)


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context for 127.0.0.1, and the file that makes a client trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "ca.pem", folder / "key.pem"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, str(trusted)
