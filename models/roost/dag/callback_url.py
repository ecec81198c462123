"""callback_url: a URL that lets somebody outside send one event (external lane)."""

from __future__ import annotations

from datetime import timedelta

from roost.dag import runtime
from roost.exceptions import RoostException
from roost.support import masking
from roost.support.clock import duration_us
from roost.support.event_keys import check_key
from roost.support.task_requests import CallbackUrl

__all__ = ["callback_url"]


def callback_url(key: str, expires_in: timedelta | float = timedelta(days=1)) -> str:
    """A URL at which one event of ``key`` can be sent, once: POST a JSON body to it.

    Give it to the system that a task starts, and wait with ``ExternalTrigger(key)``. Whoever has
    the URL can send the event, so it is hidden in the task's log.

    Args:
        key: 1 to 250 printable characters; make it one of this try, for example with
            ``dispatch_id``.
        expires_in: how long it is good, a timedelta or seconds; at most 366 days.

    Raises:
        RoostException: no task is running here, the key cannot be one, or no setting says where a
            triggerer takes events (``triggerer.callback_port``, ``triggerer.callback_url_base``).
    """
    if isinstance(expires_in, int | float) and not isinstance(expires_in, bool):
        expires_in = timedelta(seconds=expires_in)
    if not isinstance(expires_in, timedelta):
        raise RoostException(
            f"callback_url: expires_in must be a timedelta or seconds, not {expires_in!r}"
        )
    request = CallbackUrl(check_key(key), duration_us(expires_in))
    url = runtime.ask(request, f"callback_url({key!r})").text or ""
    masking.register(url.rpartition("/")[2])
    return url
