"""What is said of a task that failed: its own lines, or one line where those are ours alone."""

from __future__ import annotations

import traceback

from roost.exceptions import ParamError, TemplateError, ValueNotStorable
from roost.support.masking import mask
from roost.support.storable import storable

__all__ = ["text_of"]

# A longer traceback keeps its beginning and its end.
_ERROR_CHARS = 50_000


def _is_of_user(error: BaseException | None) -> bool:
    """Whether an error comes from code that is neither ours nor jinja2's: a macro, a filter."""
    last = error.__traceback__ if error is not None else None
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or "__jinja_exception__" in last.tb_frame.f_globals:
        return False
    return not str(last.tb_frame.f_globals.get("__name__")).startswith(("roost.", "jinja2."))


def _is_ours(error: BaseException) -> bool:
    """Whether no code of the user's has part in it: a result that cannot be kept."""
    trace = error.__traceback__
    while trace is not None:
        if not str(trace.tb_frame.f_globals.get("__name__")).startswith("roost."):
            return False
        trace = trace.tb_next
    return True


def text_of(error: BaseException) -> str:
    """The traceback from the task's own code on, fit for any database and log."""
    inner = error.__traceback__
    plain = isinstance(error, ParamError | TemplateError) and not _is_of_user(error.__cause__)
    if plain or (isinstance(error, ValueNotStorable) and _is_ours(error)):
        return storable(mask(str(error)))  # our own frames would say nothing to its author
    # Our own frames above the task's code say nothing to its author.
    while inner is not None and inner.tb_frame.f_globals.get("__name__") == "roost.dag.run":
        inner = inner.tb_next
    shown = error.with_traceback(inner or error.__traceback__)
    # Masked before it is cut: half a secret would not be recognised.
    text = mask("".join(traceback.format_exception(shown)).rstrip())
    if len(text) > _ERROR_CHARS:
        half = _ERROR_CHARS // 2
        text = f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
