"""The rows of the table of settings, read from the structs in :mod:`roost.support.settings`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from roost.support.settings import SECTIONS

__all__ = ["Setting", "all_settings"]


class Setting(NamedTuple):
    """One row of the table.

    Attributes:
        kind: the type without its limits, e.g. ``int`` or ``tuple[str, ...]``.
        type: the type with its limits, as msgspec checks it.
        default: before ``$ROOST_HOME`` is filled in.
        secret: listings show ``***`` instead of the value.
        expects: the values it takes, in words.
    """

    section: str
    key: str
    kind: Any
    type: Any
    default: Any
    doc: str
    secret: bool
    expects: str

    @property
    def name(self) -> str:
        """``section.key``, also the name of the systemd credential."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return f"ROOST__{self.section.upper()}__{self.key.upper()}"


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    tuple[str, ...]: "a list of names",
}


def _expects(kind: Any, meta: Meta) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    limits = {">": meta.gt, ">=": meta.ge, "<=": meta.le}
    parts = [f"{sign} {limit}" for sign, limit in limits.items() if limit is not None]
    return " ".join([_WORDS[kind], " and ".join(parts)]).rstrip()


@cache
def all_settings() -> tuple[Setting, ...]:
    """Every setting, section by section, in the order of :mod:`roost.support.settings`."""
    found = []
    for section, struct in SECTIONS.items():
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            annotated = hints[field.name]
            kind, meta = annotated.__origin__, annotated.__metadata__[0]
            secret = bool(meta.extra and meta.extra.get("secret"))
            found.append(
                Setting(
                    section=section,
                    key=field.name,
                    kind=kind,
                    type=annotated,
                    default=field.default,
                    doc=meta.description,
                    secret=secret,
                    expects=_expects(kind, meta),
                )
            )
    return tuple(found)
