"""``python -m tests.chaos``: the kill test. Exit code 1 when a promise was broken."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos import trial
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import KINDS

_SHOWN = 30
_CONTROL = "control"
_TRIALS = 3


def main() -> int:
    """Run one trial and say what came of it; or one for each mutant."""
    args = _arguments()
    folder = Path(args.folder or tempfile.mkdtemp(prefix="roost-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    if args.mutants is not None:
        return _mutants(args.mutants or list(MUTANTS), args.seed, folder)
    plan = trial.Plan(
        args.seconds,
        args.seed,
        args.database,
        frozenset(args.kinds.split(",")) if args.kinds else frozenset(KINDS),
        every_s=args.every,
        pause_s=(args.pause[0], args.pause[1]),
        stop_s=(args.stop[0], args.stop[1]),
    )
    _say(f"seed {plan.seed} on {plan.database} for {plan.seconds:g} s; everything is in {folder}")
    result = trial.run(plan, folder, _say)
    (folder / "violations").write_text("\n".join(result.violations) + "\n")
    summary = {
        "ok": not result.violations,
        "seed": plan.seed,
        "database": plan.database,
        "seconds": plan.seconds,
        "violations": len(result.violations),
        **result.figures,
        "folder": str(folder),
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    for line in result.violations[:_SHOWN]:
        _say(line)
    if len(result.violations) > _SHOWN:
        _say(f"and {len(result.violations) - _SHOWN} more, in {folder / 'violations'}")
    verdict = "no promise was broken" if summary["ok"] else "PROMISES WERE BROKEN, see above"
    _say(f"{verdict}: {result.figures.get('runs')} runs, {result.figures.get('deferred')} waits")
    print(json.dumps(summary))  # noqa: T201 - the product of this command
    return 0 if summary["ok"] else 1


def _mutants(names: list[str], seed: int, folder: Path) -> int:
    """Trials for each mutant until its rule finds it out, and first one without.

    Exit code 1 unless all are found out in so many trials, and nothing is where no guard was lost.
    """
    began = time.monotonic()
    found: dict[str, Any] = {}
    for name in (_CONTROL, *names):
        for number in range(1 if name == _CONTROL else _TRIALS):
            start = time.monotonic()
            rules = _try(name, seed + 100 * number, 1.0 + number / 2, folder / f"{name}-{number}")
            # A daemon that ends by itself shows nothing but that the mutant does not fit the code.
            crashed = any("ended by itself" in rule for rule in rules)
            ok = not rules if name == _CONTROL else MUTANTS[name].rule in rules and not crashed
            took = time.monotonic() - start
            found[name] = {"ok": ok, "trials": number + 1, "rules": dict(rules)}
            verdict = "as it must be" if ok else "NOT AS IT MUST BE"
            _say(f"{name}: {verdict} {dict(rules)} {took:.0f} s")
            if ok:
                break
    summary = {
        "ok": all(one["ok"] for one in found.values()),
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "mutants": found,
        "folder": str(folder),
    }
    print(json.dumps(summary))  # noqa: T201
    return 0 if summary["ok"] else 1


def _try(name: str, seed: int, stretch: float, place: Path) -> Counter[str]:
    """One trial of a mutant, ``stretch`` times as long as it says: how often rules were broken."""
    place.mkdir()
    if name == _CONTROL:
        kinds = frozenset({"kill", "freeze", "runner-kill"})
        plan = trial.Plan(30.0, seed, "postgresql", kinds, 0.5, (1.0, 4.0), (13.0, 19.0), 60.0)
    else:
        mutant = MUTANTS[name]
        plan = trial.Plan(
            mutant.seconds * stretch,
            seed,
            "postgresql",
            mutant.kinds,
            every_s=0.4,
            pause_s=mutant.pause_s,
            stop_s=(13.0, 19.0),
            drain_s=25.0 if mutant.waits else 10.0,
            aim=mutant.aim,
            waits=mutant.waits,
            mutant=name,
        )
    result = trial.run(plan, place, lambda _line: None)
    (place / "violations").write_text("\n".join(result.violations) + "\n")
    return Counter(line.partition(":")[0] for line in result.violations)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--kinds", help=f"of blows, with commas: {','.join(KINDS)}")
    parser.add_argument("--every", type=float, default=0.8, help="seconds between two runs")
    parser.add_argument(
        "--mutants",
        nargs="*",
        choices=list(MUTANTS),
        metavar="NAME",
        help="show that lost guards are found out: these, or all",
    )
    parser.add_argument(
        "--pause", type=float, nargs=2, default=(1.0, 15.0), help="bounds of seconds between blows"
    )
    parser.add_argument(
        "--stop", type=float, nargs=2, default=(1.0, 40.0), help="bounds of seconds of a SIGSTOP"
    )
    parser.add_argument("--folder", help="where everything is kept; default: a new one")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
