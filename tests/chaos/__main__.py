"""``python -m tests.chaos``: the kill test. Exit code 1 when a promise was broken."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos import trial
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import KINDS

_SHOWN = 30
_CONTROL = "control"


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
    """A trial for each mutant, and first one without: exit code 1 unless each is found out by its
    rule, and nothing is where no guard was lost."""
    found = {}
    passed = True
    for name in (_CONTROL, *names):
        place = folder / name
        place.mkdir()
        stops = name == "stale-owner"  # it is seen when a triggerer wakes up after a take-over
        plan = trial.Plan(
            75.0 if stops else 30.0,
            seed,
            "postgresql",
            frozenset({"stop"} if stops else {"kill", "freeze", "runner-kill"}),
            every_s=0.5,
            pause_s=(1.0, 4.0),
            stop_s=(13.0, 19.0),
            drain_s=45.0,
            mutant="" if name == _CONTROL else name,
        )
        result = trial.run(plan, place, lambda _line: None)
        rules = Counter(line.partition(":")[0] for line in result.violations)
        (place / "violations").write_text("\n".join(result.violations) + "\n")
        found[name] = dict(rules)
        # A daemon that ends by itself shows nothing but that the mutant does not fit the code.
        crashed = any("ended by itself" in rule for rule in rules)
        ok = (MUTANTS[name].rule in rules and not crashed) if name != _CONTROL else not rules
        passed = passed and ok
        _say(f"{name}: {'as it must be' if ok else 'NOT AS IT MUST BE'} {dict(rules)}")
    summary = {"ok": passed, "seed": seed, "mutants": found, "folder": str(folder)}
    print(json.dumps(summary))  # noqa: T201
    return 0 if passed else 1


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
