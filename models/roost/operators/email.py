"""EmailOperator: send a mail through the server of the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from roost.dag.mail import send_email
from roost.dag.operator import BaseOperator

__all__ = ["EmailOperator"]


class EmailOperator(BaseOperator):
    """Send a mail; the ``[smtp]`` section says through which server and from whom.

    Args:
        to: one address or several, templated; ``cc`` and ``bcc`` likewise.
        subject: one line, templated.
        html_content: the body, templated; the name of a ``.html`` file beside the DAG file stands
            for its rendered text.
        files: paths of attachments, templated.
        **kwargs: see BaseOperator.
    """

    template_fields = ("to", "subject", "html_content", "files", "cc", "bcc")
    template_ext = (".html",)

    def __init__(
        self,
        *,
        to: str | Iterable[str],
        subject: str,
        html_content: str,
        files: Iterable[str] | None = None,
        cc: str | Iterable[str] | None = None,
        bcc: str | Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.to = _listed(to)
        self.subject = subject
        self.html_content = html_content
        self.files = list(files or ())
        self.cc = _listed(cc)
        self.bcc = _listed(bcc)

    def execute(self, context: dict[str, Any]) -> None:
        """Send it.

        Raises:
            MailError: it was not accepted; the message says why and what to mend.
        """
        send_email(
            self.to or (),
            self.subject,
            self.html_content,
            files=self.files,
            cc=self.cc,
            bcc=self.bcc,
        )
        self.log.info("sent %r", self.subject)


def _listed(addresses: str | Iterable[str] | None) -> str | list[str] | None:
    return addresses if addresses is None or isinstance(addresses, str) else list(addresses)
