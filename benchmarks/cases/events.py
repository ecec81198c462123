"""From an event to the task that it wakes, one at a time: what a user of a quiet system sees."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from benchmarks import dags
from benchmarks.harness import Bench, Record, percentile
from benchmarks.machine import Span
from benchmarks.site import Site
from roost.models.engine import Sql, transact
from roost.models.queries import external
from roost.models.queries.external import NewEvent
from roost.support.clock import SECOND
from roost.support.crypto import Keyring, keyring_of
from tests.support.waiting import wait_until

_KINDS = ("external", "poll", "timer")
_NUMBER = 100
_APART_S = 0.08
_WAITING = Sql("SELECT count(*) AS n, count(job_id) AS held FROM trigger WHERE fired_at IS NULL")


def measure(bench: Bench) -> Iterator[Record]:
    """100 events of each lane, twelve a second, until the first line of ``execute_complete``.

    Of the external lane from right before what ``roost events send`` does, without the start of
    its process; of the poll lane from right before the trigger yields; of a timer from its moment.
    """
    number = bench.size(_NUMBER)
    with bench.site() as site:
        site.start_with({"moments": dags.moments("moments", number, site.witness)})
        keys = keyring_of(site.config)
        _once(site, keys, "poll", "warm", number, 0.01)
        for run in range(bench.runs):
            for kind in _KINDS:
                late, span = _once(site, keys, kind, f"r{run}_{kind}", number, _APART_S)
                figures = {
                    f"{kind}_resumed_p50_ms": percentile(late, 0.5),
                    f"{kind}_resumed_p99_ms": percentile(late, 0.99),
                }
                yield bench.record(run, figures, span)


def _once(
    site: Site, keys: Keyring, kind: str, run_id: str, number: int, apart_s: float
) -> tuple[list[float], Span]:
    """Milliseconds from each event to the task that it woke."""
    site.take_witness()
    moment = time.time() + 3 + number / 40
    conf = {"kind": kind, "moment": moment, "step": apart_s}
    site.trigger(["moments"], [run_id], msgspec.json.encode(conf).decode())
    wait_until(lambda: _wait(site, kind) == number, moment - time.time() - 0.5, "all to wait")
    site.quiet(max(0, moment - time.time() - 1.5))
    time.sleep(max(0, moment - time.time() - 0.3))
    span = site.span()
    if kind == "external":
        for index in range(number):
            time.sleep(max(0, moment + index * apart_s - time.time()))
            _send(site, keys, f"{run_id}/{index}")
    site.wait_runs(run_id)
    return [(resumed - at) / 1e6 for at, resumed in site.take_witness()], span


def _wait(site: Site, kind: str) -> int:
    (row,) = site.rows(_WAITING)
    return int(row.held if kind == "poll" else row.n)


def _send(site: Site, keys: Keyring, key: str) -> None:
    sealed = keys.encrypt(f"{time.time()}")
    event = NewEvent(key, sealed, "bench", 3600 * SECOND)
    transact(site.engine, lambda tx: external.send(tx, event))
    site.ring("triggerer")
