"""A small Graphite: the paths a statsd server writes, and the few functions our dashboards use."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterable

Series = dict[str, float]
"""Name of a series -> its value."""


def statsd_paths(lines: Iterable[str]) -> Series:
    """What etsy's statsd writes to Graphite with default settings, one second after the lines."""
    paths: Series = {}
    for line in lines:
        name, value, mark = re.split("[:|]", line)
        if mark == "g":
            paths[f"stats.gauges.{name}"] = float(value)
        elif mark == "c":
            paths[f"stats.{name}"] = paths[f"stats_counts.{name}"] = float(value)
        else:
            for end in ("mean", "upper", "lower", "sum", "upper_90", "mean_90"):
                paths[f"stats.timers.{name}.{end}"] = float(value)
            paths[f"stats.timers.{name}.count"] = 1
    return paths


def render(target: str, store: Series) -> Series:
    """The series of a target; raises for anything but the functions below."""
    # A path is the one argument of a call that is no literal: quote it, and it is a Python call.
    quoted = re.sub(r"(?<![\w'.])(stats[\w.*-]+)(?![\w'(])", r"path('\1')", target)
    return _evaluate(ast.parse(quoted, mode="eval").body, store)


def _evaluate(call: ast.expr, store: Series) -> Series:
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name), ast.dump(call)
    literals = [ast.literal_eval(arg) for arg in call.args if isinstance(arg, ast.Constant)]
    if call.func.id == "path":
        parts = literals[0].split(".")
        return {
            path: value
            for path, value in store.items()
            if len(given := path.split(".")) == len(parts)
            and all(map(fnmatch.fnmatchcase, given, parts))
        }
    found = _evaluate(call.args[0], store)
    match call.func.id, literals:
        case "alias", [str(name)]:
            assert len(found) <= 1, f"{len(found)} lines would all be called {name}"
            return dict.fromkeys([name], sum(found.values())) if found else {}
        case "aliasSub", [str(search), str(put)]:
            return {re.sub(search, put, name): value for name, value in found.items()}
        case "sumSeries", []:
            return {"sumSeries": sum(found.values())} if found else {}
        case "scale", [int(factor)]:
            return {f"scale({name},{factor})": value * factor for name, value in found.items()}
        case "groupByNode", [int(node), ("sum" | "average") as how]:
            groups: dict[str, list[float]] = {}
            for name, value in found.items():
                path = re.sub(r".*\(|[,)].*", "", name)
                groups.setdefault(path.split(".")[node], []).append(value)
            return {
                name: sum(values) / (len(values) if how == "average" else 1)
                for name, values in groups.items()
            }
        case other:
            raise AssertionError(f"not a function of this Graphite: {other}")
