"""EmailOperator, to a real server (S28)."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.operators import EmailOperator
from roost.support.task_requests import MailSettings, Reply, Request
from tests.dag.case import FakeSupervisor, a_dag, run
from tests.support.mail_server import MailServer, mail_server


class Knowing(FakeSupervisor):
    """Knows the mail server."""

    def __init__(self, server: MailServer) -> None:
        super().__init__()
        self.server = server

    def _answer(self, request: Request) -> Reply:
        if isinstance(request, MailSettings):
            return Reply(smtp=self.server.smtp)
        return super()._answer(request)


def test_s28_a_mail_is_rendered_and_sent(tmp_path: Path) -> None:
    (tmp_path / "2026-01-31.csv").write_text("a,b")
    task = EmailOperator(
        task_id="m",
        to=["{{ ds }}@example.com", "you@example.com"],
        cc="him@example.com",
        bcc=["her@example.com"],
        subject="report of {{ ds }}",
        html_content="<b>{{ ds }}</b>",
        files=[f"{tmp_path}/{{{{ ds }}}}.csv"],
        dag=a_dag(),
    )
    with mail_server() as server:
        outcome, _ = run(task, Knowing(server))
        assert outcome.error is None, outcome.error
        (mail,), (everybody,) = server.mails, server.envelopes
    assert mail["To"] == "2026-01-31@example.com, you@example.com"
    assert (mail["Cc"], mail["Bcc"]) == ("him@example.com", None)
    assert sorted(everybody)[-1] == "you@example.com"
    assert "her@example.com" in everybody
    assert mail["Subject"] == "report of 2026-01-31"
    assert "<b>2026-01-31</b>" in mail.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert [part.get_filename() for part in mail.iter_attachments()] == ["2026-01-31.csv"]


@pytest.mark.parametrize("missing", ["file", "server"])
def test_what_goes_wrong_is_said(missing: str) -> None:
    task = EmailOperator(
        task_id="m", to="a@example.com", subject="s", html_content="x", files=["/none"], dag=a_dag()
    )
    if missing == "server":
        task.files = []
    server = MailServer()
    server.smtp = type(server.smtp)(port=1, timeout=5)
    error = run(task, Knowing(server))[0].error or ""
    assert ("/none" if missing == "file" else "check smtp.host") in error
