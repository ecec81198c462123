"""A small statsd_exporter: the documented rules of its mapping files, and nothing else.

From its README and the checks its configuration loader makes: globs match dot-separated parts one
to one, the first rule that fits name and type wins, ``$n`` and ``${n}`` stand for the n-th ``*``,
what no rule matches keeps its name with ``_`` for every other character, timers become summaries
in seconds.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

_PART = r"[a-zA-Z_](-?[a-zA-Z0-9_])*"
_MATCH = re.compile(rf"(\*\.|{_PART}\.)+(\*|{_PART})")
_NAME = re.compile(r"([a-zA-Z_]|\$\{?\d+\}?)([a-zA-Z0-9_]|\$\{?\d+\}?)*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]+")
_TYPES = {"g": "gauge", "c": "counter", "ms": "observer"}
_KEYS = {"match", "match_metric_type", "name", "help", "labels", "observer_type"}


class Mapped(NamedTuple):
    """What a statsd line became; ``rule`` is None when no rule matched."""

    name: str
    kind: str
    labels: tuple[tuple[str, str], ...]
    value: float
    rule: dict[str, Any] | None


class Exporter:
    """Loads a mapping as statsd_exporter would, refusing what it refuses, and applies it."""

    def __init__(self, text: str) -> None:
        self.rules: list[dict[str, Any]] = yaml.safe_load(text)["mappings"]
        for rule in self.rules:
            assert set(rule) <= _KEYS, f"not a key of a mapping: {set(rule) - _KEYS}"
            assert _MATCH.fullmatch(rule["match"]), f"invalid match: {rule['match']}"
            assert _NAME.fullmatch(rule["name"]), f"invalid name: {rule['name']}"
            assert all(_LABEL.fullmatch(label) for label in rule.get("labels", {}))
            assert rule["match_metric_type"] in _TYPES.values()

    def map(self, line: str) -> Mapped:
        """One ``name:value|type`` line."""
        name, _, rest = line.partition(":")
        value, _, mark = rest.partition("|")
        kind = _TYPES[mark]
        number = float(value) / (1000 if kind == "observer" else 1)
        for rule in self.rules:
            stars = self._stars(rule["match"], name)
            if stars is not None and rule["match_metric_type"] == kind:
                labels = {
                    label: self._expand(text, stars)
                    for label, text in rule.get("labels", {}).items()
                }
                mapped = self._expand(rule["name"], stars)
                return Mapped(mapped, kind, tuple(sorted(labels.items())), number, rule)
        return Mapped(re.sub(r"[^a-zA-Z0-9_]", "_", name), kind, (), number, None)

    @staticmethod
    def _stars(match: str, name: str) -> list[str] | None:
        wanted, given = match.split("."), name.split(".")
        if len(wanted) != len(given):
            return None
        pairs = list(zip(wanted, given, strict=True))
        if any(want not in ("*", part) for want, part in pairs):
            return None
        return [part for want, part in pairs if want == "*"]

    @staticmethod
    def _expand(text: str, stars: list[str]) -> str:
        return re.sub(r"\$\{?(\d+)\}?", lambda found: stars[int(found[1]) - 1], text)


def exposition(mapped: list[Mapped], at_ms: int, factor: float = 1.0) -> str:
    """Prometheus text of what was mapped, as scraped at ``at_ms``; counts are times ``factor``."""
    lines = []
    for one in mapped:
        given = [f'{label}="{value}"' for label, value in one.labels]
        pairs = "{" + ",".join(given) + "}"
        if one.kind == "observer":
            quantile = "{" + ",".join([*given, 'quantile="0.99"']) + "}"
            lines += [
                f"{one.name}_sum{pairs} {one.value * factor} {at_ms}",
                f"{one.name}_count{pairs} {factor} {at_ms}",
                f"{one.name}{quantile} {one.value} {at_ms}",
            ]
        else:
            value = one.value * factor if one.kind == "counter" else one.value
            lines.append(f"{one.name}{pairs} {value} {at_ms}")
    return "\n".join(lines) + "\n"
