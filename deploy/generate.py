"""Makes the statsd_exporter mappings and Grafana dashboards from the metric registry.

python deploy/generate.py                            # the committed files, in place
python deploy/generate.py --prefix mine --out DIR    # those of another statsd.prefix
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from deploy.dashboards import STORES, dashboard
from roost.support.metrics import exporter_mapping

HERE = Path(__file__).resolve().parent
# The default of statsd.prefix, and the one under which dashboards made for Airflow work unchanged.
PREFIXES = ("roost", "airflow")


def files(prefix: str) -> dict[str, str]:
    """Path below ``deploy/`` -> text, of everything that is made for one prefix."""
    made = {f"statsd_exporter/{prefix}.yml": exporter_mapping(prefix)}
    for store in STORES:
        text = json.dumps(dashboard(store, prefix), indent=2)
        made[f"grafana/{prefix}-{store.kind}.json"] = text + "\n"
    return made


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prefix", action="append", help="statsd.prefix; may be given repeatedly")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    chosen = parser.parse_args()
    for prefix in chosen.prefix or PREFIXES:
        for name, text in files(prefix).items():
            path = chosen.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
