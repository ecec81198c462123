"""Makes mappings, dashboards and the table in docs/metrics.md from the metric registry.

python deploy/generate.py                            # the committed files, in place
python deploy/generate.py --prefix mine --out DIR    # those of another statsd.prefix
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from deploy.dashboards import STORES, dashboard
from roost.support.metrics import METRICS, exporter_labels, exporter_mapping, exporter_name

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs" / "metrics.md"
# The default of statsd.prefix, and the one under which dashboards made for Airflow work unchanged.
PREFIXES = ("roost", "airflow")


def files(prefix: str) -> dict[str, str]:
    """Path below ``deploy/`` -> text, of everything that is made for one prefix."""
    made = {f"statsd_exporter/{prefix}.yml": exporter_mapping(prefix)}
    for store in STORES:
        text = json.dumps(dashboard(store, prefix), indent=2)
        made[f"grafana/{prefix}-{store.kind}.json"] = text + "\n"
    return made


def table() -> str:
    """The table of every metric, as docs/metrics.md holds it."""
    lines = [
        "| name | kind | counts | emitted by | Prometheus, prefix `airflow` | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(exporter_labels(metric))
        exported = exporter_name(metric, "airflow") + (f"{{{labels}}}" if labels else "")
        daemons = ", ".join(metric.daemons)
        lines.append(
            f"| `{metric.name}` | {metric.kind} | {metric.unit} | {daemons} "
            f"| `{exported}` | {metric.help} |"
        )
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The text of docs/metrics.md with its table as the registry has it."""
    head, start, rest = text.partition("<!-- made by deploy.generate -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    return head + start + table() + end + tail


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
    if chosen.out == HERE:
        DOCS.write_text(with_table(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
        print(DOCS)


if __name__ == "__main__":
    main()
