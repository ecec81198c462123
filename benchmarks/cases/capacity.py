"""How fast a triggerer takes up triggers that have to be run, and what each of them costs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import dags
from benchmarks.harness import Bench, Record
from benchmarks.site import Site
from roost.models.engine import Sql, Tx, transact
from roost.models.tables import task_instance, trigger
from tests.support.waiting import wait_until

_ONE = Sql("SELECT count(*) AS n FROM trigger WHERE lane = 'poll'")


def _copies(table: str, columns: list[str], instead: dict[str, str]) -> str:
    """A statement that copies one row ``:number`` times, some columns replaced."""
    chosen = ", ".join(instead.get(name, f"s.{name}") for name in columns)
    series = (
        "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :number) "
        "SELECT i FROM n) AS n"
    )
    listed = ", ".join(columns)
    return f"INSERT INTO {table} ({listed}) SELECT {chosen} FROM {table} s, {series}"  # noqa: S608


_INSTANCES = Sql(
    _copies(
        "task_instance",
        [column.name for column in task_instance.columns if column.name != "id"],
        {"map_index": "n.i", "trigger_id": "NULL"},
    )
    + " WHERE s.map_index = -1"
)
_trigger_columns = [column.name for column in trigger.columns if column.name != "id"]
_TRIGGERS = Sql(
    f"INSERT INTO trigger ({', '.join(_trigger_columns)}) "  # noqa: S608
    "SELECT "
    + ", ".join(
        {"ti_id": "t.id", "job_id": "NULL", "epoch": "0"}.get(name, f"s.{name}")
        for name in _trigger_columns
    )
    + " FROM trigger s, task_instance t WHERE t.map_index > 0"
)
_LINK = Sql(
    "UPDATE task_instance SET trigger_id = "
    "(SELECT g.id FROM trigger g WHERE g.ti_id = task_instance.id) WHERE map_index > 0"
)


def measure(bench: Bench) -> Iterator[Record]:
    """10,000 poll triggers appear at once, as rows copied from one that a task really made."""
    number = bench.size(10_000)
    for run in range(bench.runs):
        with bench.site({"triggerer.capacity": 20_000}) as site:
            site.start_with({"waiting": dags.count_waits("waiting", site.witness)})
            site.trigger(["waiting"], ["r"])
            wait_until(lambda: site.rows(_ONE)[0].n == 1, 30, "the first trigger")
            wait_until(lambda: _started(site) == 1, 30, "the first trigger to run")
            site.stop("scheduler", "worker")
            yield _once(bench, site, run, number)


def _started(site: Site) -> int:
    return site.witness.stat().st_size if site.witness.exists() else 0


def _once(bench: Bench, site: Site, run: int, number: int) -> Record:
    site.quiet()
    empty = site.memory_mb("triggerer")["triggerer"]

    def insert(tx: Tx) -> None:
        tx.run(_INSTANCES, number=number)
        tx.run(_TRIGGERS)
        tx.run(_LINK)

    transact(site.engine, insert)
    span = site.span()
    began = time.time()
    site.ring("triggerer")
    wait_until(lambda: _started(site) >= number + 1, 300, "all triggers to run")
    taken = site.witness.stat().st_mtime - began
    made = bench.record(run, {"capacity_taken_s": taken}, span)
    site.quiet()
    full = site.memory_mb("triggerer")["triggerer"]
    made.figures["capacity_kb_each"] = round((full - empty) * 1024 / number, 3)
    idle = site.span()
    time.sleep(10 * min(1.0, bench.scale * 2))
    wall, cpu, _ = idle.done()
    made.figures["capacity_waiting_cpu_pct"] = round(100 * cpu["triggerer"] / wall, 2)
    return made
