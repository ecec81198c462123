"""Mails reach a real SMTP server, and what goes wrong is told in one line (H23, S28)."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from roost.dag import runtime
from roost.dag.mail import send_email as send_from_task
from roost.exceptions import MailError, RoostException
from roost.support.config import load_config, user_environ
from roost.support.mail import Smtp, addresses, send_email
from roost.support.task_requests import MailSettings, Reply, Request
from tests.support.mail_server import USER, certificate, mail_server

WRONG = "hunter2"


def test_a_mail_with_copies_and_files_arrives(tmp_path: Path) -> None:
    report = tmp_path / "report ü.csv"
    report.write_text("a,b\n1,2\n")
    with mail_server() as server:
        send_email(
            "ann@example.org; bob@example.org",
            "Grüße: done",
            "<p>Über 9000 ✓</p>",
            smtp=replace(server.smtp, sender="roost@example.org"),
            cc=["carl@example.org"],
            bcc="dora@example.org",
            files=[report],
        )
    (mail,), (envelope,) = server.mails, server.envelopes
    assert mail["Subject"] == "Grüße: done"
    assert mail["From"] == "roost@example.org"
    assert mail["To"] == "ann@example.org, bob@example.org"
    assert mail["Cc"] == "carl@example.org"
    assert "dora" not in mail.as_string()
    assert envelope == [f"{name}@example.org" for name in ("ann", "bob", "carl", "dora")]
    body = mail.get_body(("html",))
    assert body is not None and body.get_content().strip() == "<p>Über 9000 ✓</p>"
    (attached,) = mail.iter_attachments()
    assert attached.get_filename() == "report ü.csv"
    assert attached.get_content_type() == "text/csv"


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "ssl"])
def test_over_tls_with_a_login(tmp_path: Path, implicit: bool) -> None:
    context, ca = certificate(tmp_path)
    with mail_server(tls=context, implicit=implicit, login=True) as server:
        smtp = replace(server.smtp, ssl=implicit, starttls=not implicit, ca=ca)
        smtp = replace(smtp, user=USER[0], password=USER[1])
        send_email("ann@example.org", "s", "b", smtp=smtp)
    assert server.encrypted == [True]


def refused(smtp: Smtp, to: str = "ann@example.org", subject: str = "s") -> str:
    with pytest.raises(MailError) as caught:
        send_email(to, subject, "b", smtp=smtp)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_wrong_password_is_told_without_showing_it() -> None:
    with mail_server(login=True) as server:
        message = refused(replace(server.smtp, user=USER[0], password=WRONG))
    assert "refuses user 'roost' (535" in message
    assert "check smtp.user and smtp.password" in message
    assert WRONG not in message
    assert server.mails == []


def test_starttls_is_insisted_upon() -> None:
    with mail_server() as server:
        message = refused(replace(server.smtp, starttls=True))
    assert "STARTTLS" in message and "check smtp.starttls" in message
    assert server.mails == []


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "ssl"])
def test_an_untrusted_certificate_ends_it(tmp_path: Path, implicit: bool) -> None:
    context, _ca = certificate(tmp_path)
    with mail_server(tls=context, implicit=implicit) as server:
        message = refused(replace(server.smtp, ssl=implicit, starttls=not implicit))
    assert "no secure connection" in message and "smtp.ca" in message
    assert server.mails == []


def test_a_ca_that_cannot_be_read(tmp_path: Path) -> None:
    with mail_server() as server:
        message = refused(replace(server.smtp, ssl=True, ca=str(tmp_path / "none.pem")))
    assert "smtp.ca" in message and "none.pem" in message


def test_nobody_listens() -> None:
    with socket.socket() as taken:  # bound, and nobody listens: connections are refused
        taken.bind(("127.0.0.1", 0))
        message = refused(Smtp(host="127.0.0.1", port=taken.getsockname()[1]))
    assert "cannot be reached" in message and "check smtp.host" in message


def test_refused_recipients() -> None:
    with mail_server() as server:
        server.refused = {"ann@example.org"}
        assert "refuses every recipient: ann@example.org (550" in refused(server.smtp)
        some = refused(server.smtp, "ann@example.org, bob@example.org")
    assert "took the mail, but not for ann@example.org (550" in some
    assert server.envelopes == [["bob@example.org"]]


def test_what_cannot_be_a_mail() -> None:
    assert "nobody to send it to" in refused(Smtp(), to=" ; ")
    assert "cannot be made" in refused(Smtp(), subject="two\r\nBcc: evil@example.org")
    with pytest.raises(MailError, match="cannot be made"):
        send_email("a@example.org", "s", "b", smtp=Smtp(), files=["/nowhere/at/all"])


def test_lists_of_addresses() -> None:
    assert addresses(None) == []
    assert addresses("a@x, b@x;c@x") == ["a@x", "b@x", "c@x"]
    assert addresses(["a@x", "b@x, c@x"]) == ["a@x", "b@x", "c@x"]


class _Worker:
    def __init__(self, smtp: Smtp | None) -> None:
        self.smtp = smtp
        self.asked: list[Request] = []

    def call(self, request: Request) -> Reply:
        self.asked.append(request)
        return Reply(smtp=self.smtp)


def test_a_task_gets_the_settings_on_request_and_never_by_its_environment(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{WRONG}\n")
    environ = {
        "ROOST_HOME": str(tmp_path),
        "ROOST__SMTP__PASSWORD_FILE": str(secret),
        "ROOST__SMTP__HOST": "mail.example.org",
    }
    config = load_config(environ)
    assert config.smtp.password == WRONG
    assert "PASSWORD" not in str(user_environ(config, environ))
    with mail_server() as server:
        worker = _Worker(server.smtp)
        with runtime.using(worker, None):
            send_from_task("ann@example.org", "s", "b")
    assert worker.asked == [MailSettings()]
    assert len(server.mails) == 1


def test_outside_a_task_the_settings_must_be_given() -> None:
    with pytest.raises(RoostException, match="the mail server: the database can only be asked"):
        send_from_task("ann@example.org", "s", "b")
    with mail_server() as server:
        send_from_task("ann@example.org", "s", "b", config=server.smtp)
    assert len(server.mails) == 1
