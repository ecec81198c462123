"""Evaluates Graphite targets with graphite-web itself; run by an interpreter that has it.

Reads ``{"folder", "now", "paths": {path: value}, "targets": [...]}`` from standard input, stores
the values in whisper files as constant for some minutes, prints ``[{name: value}, ...]``.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    folder = Path(asked["folder"])
    (folder / "log" / "webapp").mkdir(parents=True)
    warnings.simplefilter("ignore")
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "graphite.settings",
        "GRAPHITE_STORAGE_DIR": str(folder),
        "GRAPHITE_ROOT": str(folder),
    }
    for path, value in asked["paths"].items():
        store(folder / "whisper" / (path.replace(".", "/") + ".wsp"), value, asked["now"])
    import_module("django").setup()
    json.dump([render(target, asked["now"]) for target in asked["targets"]], sys.stdout)


def store(file: Path, value: float, now: int) -> None:
    whisper = import_module("whisper")
    file.parent.mkdir(parents=True, exist_ok=True)
    whisper.create(str(file), [(10, 60)])
    whisper.update_many(str(file), [(moment, value) for moment in range(now - 300, now + 1, 10)])


def render(target: str, now: int) -> dict[str, float]:
    evaluator: Any = import_module("graphite.render.evaluator")
    zone = import_module("datetime").timezone.utc
    moment = import_module("datetime").datetime.fromtimestamp
    context = {
        "startTime": moment(now - 120, zone),
        "endTime": moment(now - 30, zone),
        "now": moment(now, zone),
        "localOnly": True,
        "template": None,
        "tzinfo": zone,
        "data": [],
        "requestContext": {},
        "xFilesFactor": 0,
    }
    found = evaluator.evaluateTarget(context, target)
    return {series.name: next(value for value in series if value is not None) for series in found}


if __name__ == "__main__":
    main()
