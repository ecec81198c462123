"""The mails that ``email_on_failure`` and ``email_on_retry`` send."""

from __future__ import annotations

import html
from typing import Any

from roost.dag.mail import send_email

__all__ = ["failure_mail"]


def failure_mail(context: dict[str, Any]) -> None:
    """Tell the task's addresses how its try ended."""
    ti, task = context["ti"], context["task"]
    error = context["exception"]
    what = "will be retried" if ti.state == "up_for_retry" else "failed"
    mapped = f" [{ti.map_index}]" if ti.map_index >= 0 else ""
    name = f"{ti.dag_id}.{ti.task_id}{mapped}"
    rows = {
        "DAG": ti.dag_id,
        "Run": ti.run_id,
        "Task": f"{ti.task_id}{mapped}",
        "Try": f"{ti.try_number} of {ti.max_tries}",
        "State": ti.state,
        "Logical date": context.get("ts", "none"),
        "Error": context["reason"],
    }
    table = "".join(
        f"<tr><th align=left>{html.escape(label)}</th><td>{html.escape(str(value))}</td></tr>"
        for label, value in rows.items()
    )
    trace = "" if error is None else f"<pre>{html.escape(error.traceback)}</pre>"
    send_email(
        task.email,
        f"[Roost] {name} {what}: {ti.run_id}, try {ti.try_number}",
        f"<table>{table}</table>{trace}",
    )
