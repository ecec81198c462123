"""The worker's part of the database: each method is one transaction, run in a thread.

claim   the queue's best rows -> task specs
store   outcomes and XComs -> the scheduler's inbox
answer  requests of tasks -> replies
beat    the lease, and which dispatches still are this worker's
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec
from sqlalchemy import Engine

from roost.dag.model import SerializedDag, SerializedTask
from roost.exceptions import DecryptionError, RoostException
from roost.models.engine import Tx, read, single, transact
from roost.models.queries import dispatches, jobs, xcoms
from roost.models.queries.dispatches import Claimed, DagCode
from roost.models.queries.task_specs import task_spec
from roost.support.clock import SECOND, now_us
from roost.support.crypto import Keyring
from roost.support.processes import Process, is_alive
from roost.support.sealed import as_raw, opened
from roost.support.task_requests import Reply
from roost.support.wire import CallbackSpec, Outcome, TaskSpec
from roost.worker.answers import Answers, writes, xcom_of
from roost.worker.attendant import Asked, Ended

__all__ = ["Beat", "Ledger", "Start"]

log = logging.getLogger("roost.worker")
_KEPT_VERSIONS = 64
_decode_dag = msgspec.json.Decoder(SerializedDag).decode
_decode_callback = msgspec.json.Decoder(CallbackSpec).decode
_encode = msgspec.json.Encoder().encode


class Start(NamedTuple):
    """A dispatch to start and the text of its DAG file."""

    spec: TaskSpec
    source: str


class Beat(NamedTuple):
    """What a heartbeat found.

    Attributes:
        alive: False when others have ended this worker's job.
        held: dispatches that are this worker's by the database; None when it did not look.
        elsewhere: kinds of the daemons that live in other places.
        undead: those held whose task instances others have moved (S107).
    """

    alive: bool
    held: set[int] | None
    elsewhere: frozenset[str] = frozenset()
    undead: frozenset[int] = frozenset()


class _Code(NamedTuple):
    fileloc: str
    code_hash: str
    source: str
    tasks: dict[str, SerializedTask]


class Ledger:
    """The database as this worker uses it. Called from several threads.

    Args:
        engine: the metadata database.
        me: this process.
        queues: which queues' dispatches to take.
        run_dir: where this daemon's bell is.
        answers: makes the replies to requests.
        callback_timeout_us: longest run time of a callback.
        keys: of what tasks defer with and resume with (D22); None: nothing is encrypted.
    """

    def __init__(
        self,
        engine: Engine,
        me: Process,
        queues: Sequence[str],
        run_dir: str,
        answers: Answers,
        callback_timeout_us: int = 60 * SECOND,
        keys: Keyring | None = None,
    ) -> None:
        self._engine = engine
        self._answers = answers
        self._me = me
        self._queues = tuple(queues)
        self._run_dir = run_dir
        self._callback_timeout_us = callback_timeout_us
        self._keys = keys
        self._codes: OrderedDict[int, _Code] = OrderedDict()
        self._may_hold = False
        self.job_id = 0

    # ------------------------------------------------------------------ the job

    def join(self) -> int:
        """Register as a new job; gives its id."""
        detail = _encode({"queues": self._queues}).decode()

        def step(tx: Tx) -> int:
            return jobs.register(tx, "worker", self._me, self._run_dir, detail=detail)

        self.job_id = transact(self._engine, step)
        return self.job_id

    def leave(self) -> None:
        """Say goodbye. What is still held is lost, and dispatched anew."""
        transact(self._engine, lambda tx: jobs.end(tx, self.job_id))

    def dead_neighbours(self) -> list[str]:
        """Tokens of workers of this host that ended without saying so."""
        with read(self._engine) as tx:
            live = jobs.live(tx)
        return [
            job.token
            for job in live
            if job.kind == "worker"
            and job.host_id == self._me.host_id
            and not is_alive(job.pid, job.pid_start)
        ]

    def beat(self, *, busy: bool) -> Beat:
        """Renew the lease, and look at what is held unless that can only be nothing.

        The two need not be one transaction: what is held without being known counts only when
        the next beat finds it too.

        Args:
            busy: whether the worker knows of anything that it holds.
        """
        detail = _encode({"queues": self._queues}).decode()
        lease = single(self._engine, partial(jobs.renew, job_id=self.job_id, detail=detail))
        held: dict[int, bool] | None = None
        if busy or self._may_hold:
            self._may_hold = False
            with read(self._engine) as tx:
                held = dispatches.held(tx, self.job_id)
            self._may_hold |= bool(held)
        ids = None if held is None else set(held)
        if lease is None:
            return Beat(False, ids)
        undead = frozenset(id_ for id_, moved in (held or {}).items() if moved)
        return Beat(True, ids, lease.elsewhere, undead)

    def wished(self) -> set[int]:
        """Dispatches of this worker that a user wants to end otherwise than by themselves."""
        with read(self._engine) as tx:
            return dispatches.wished(tx, self.job_id)

    # ------------------------------------------------------------------ claims

    def sees_work(self) -> bool:
        """A glance at the queue, for looking without having been rung."""
        with read(self._engine) as tx:
            return dispatches.waiting(tx, self._queues, 1) > 0

    def claim(self, limit: int) -> list[Start]:
        """Take dispatches from the queue, at most ``limit``, and move them to running."""
        self._may_hold = True  # noted first: the answer to the commit may be lost
        return transact(self._engine, lambda tx: self._claim(tx, limit))

    def _claim(self, tx: Tx, limit: int) -> list[Start]:
        claimed = dispatches.claim(tx, self.job_id, self._queues, limit)
        if not claimed:
            return []
        now = now_us()
        actor = f"worker:{self.job_id}"
        moved = dispatches.start(tx, claimed, now=now, hostname=self._me.hostname, actor=actor)
        stale = [one.id for one in claimed if one.id not in moved]
        if stale:  # somebody moved the task instance meanwhile; its dispatch means nothing
            outcome = _encode(_lost("the task instance was moved by others")).decode()
            dispatches.end_dispatches(tx, self.job_id, dict.fromkeys(stale, outcome))
        codes = self._codes_of(tx, {one.version_id for one in claimed})
        return [
            Start(self._spec(one, codes[one.version_id], now), codes[one.version_id].source)
            for one in claimed
            if one.id in moved
        ]

    def _spec(self, one: Claimed, code: _Code, now: int) -> TaskSpec:
        if one.callback is None:
            return self._opened(_spec(one, code, now), one.next_kwargs)
        callback = _decode_callback(one.callback)
        task = code.tasks.get(callback.task_id or "")
        seen = one._replace(
            ti_id=callback.ti_id or 0,
            task_id=callback.task_id or "",
            map_index=callback.map_index,
            try_number=callback.try_number,
            start_date=callback.start_date,
            pool=task.pool if task else "",
            pool_slots=task.pool_slots if task else 0,
            priority_weight=task.priority_weight if task else 0,
        )
        spec = _spec(seen, code, now)
        spec.callback = callback
        if callback.kind != "task":
            spec.run_as_user = None
        spec.execution_timeout_us = self._callback_timeout_us
        return spec

    def _opened(self, spec: TaskSpec, next_kwargs: str | None) -> TaskSpec:
        """With what it resumes with decrypted; where that fails, the task fails (D4)."""
        if next_kwargs is None:
            return spec
        what = f"what task {spec.task_id!r} is resumed with"
        keys = self._keys
        try:
            plain = opened(next_kwargs, lambda text: keys.unseal(text, what) if keys else text)
            spec.next_kwargs = msgspec.Raw(plain.encode())
        except (DecryptionError, msgspec.DecodeError, ValueError) as error:
            spec.next_kwargs = msgspec.Raw(b"{}")
            spec.trigger_error = f"{what} cannot be read: {error}"
        return spec

    def _sealed(self, outcome: Outcome) -> Outcome:
        """With what it deferred with encrypted (D22).

        Waits that are rows of ours hold moments, ids and keys only, and the scheduler reads some.
        """
        spec = outcome.defer
        if spec is None or self._keys is None:
            return outcome
        ours = spec.lane != "poll" and spec.source.startswith("roost.triggers.")
        seal = self._keys.seal
        try:
            changed = msgspec.structs.replace(
                spec,
                kwargs=spec.kwargs if ours else as_raw(seal(bytes(spec.kwargs).decode())),
                next_kwargs=as_raw(seal(bytes(spec.next_kwargs).decode())),
            )
        except RoostException as error:  # the key is gone since the start
            why = f"what the task deferred with cannot be encrypted: {error}"
            return msgspec.structs.replace(outcome, kind="failed", defer=None, error=why)
        return msgspec.structs.replace(outcome, defer=changed)

    def _codes_of(self, tx: Tx, version_ids: set[int]) -> dict[int, _Code]:
        missing = [id_ for id_ in version_ids if id_ not in self._codes]
        if missing:
            for row in dispatches.dag_codes(tx, missing):
                self._codes[row.version_id] = _code(row)
        found = {}
        for id_ in version_ids:
            found[id_] = self._codes[id_]
            self._codes.move_to_end(id_)
        while len(self._codes) > _KEPT_VERSIONS:
            self._codes.popitem(last=False)
        return found

    # ------------------------------------------------------------------ outcomes

    def store(self, ended: Sequence[Ended]) -> int:
        """Write outcomes and what they return, once; gives how many were taken.

        May be repeated when the answer to its commit was lost: what is written stays as it is.
        """
        return transact(self._engine, lambda tx: self._store(tx, ended))

    def _store(self, tx: Tx, ended: Sequence[Ended]) -> int:
        ended = [self._storable(one) for one in ended]
        values = [xcom_of(one.spec, write) for one in ended for write in one.outcome.xcoms]
        xcoms.push(tx, self.job_id, values)
        outcomes = {}
        for one in ended:
            outcome = self._sealed(one.outcome)
            if outcome.xcoms:
                outcome = msgspec.structs.replace(outcome, xcoms=[])
            outcomes[one.spec.dispatch_id] = _encode(outcome).decode()
        taken = dispatches.end_dispatches(tx, self.job_id, outcomes)
        names = {
            one.spec.ti_id: one.outcome.map_name
            for one in ended
            if one.outcome.map_name is not None and one.spec.dispatch_id in taken
        }
        dispatches.name_instances(tx, names)
        return len(taken)

    def _storable(self, one: Ended) -> Ended:
        """What a task process should have refused by itself is refused here all the same."""
        for write in one.outcome.xcoms:
            wrong = self._answers.refusal(one.spec, write)
            if wrong:
                was = one.outcome
                return Ended(one.spec, Outcome("failed", was.started_at, was.ended_at, wrong))
        return one

    def give_up(self, dispatch_ids: Sequence[int], error: str) -> None:
        """End dispatches that this worker holds by the database but does not run."""
        outcome = _encode(_lost(error)).decode()
        transact(
            self._engine,
            lambda tx: dispatches.end_dispatches(
                tx, self.job_id, dict.fromkeys(dispatch_ids, outcome)
            ),
        )

    # ------------------------------------------------------------------ requests

    def answer(self, asked: Sequence[Asked]) -> list[Reply]:
        """Answers to requests, in their order, each as it was asked by that very task."""

        def step(tx: Tx) -> list[Reply]:
            return [self._answers.reply(tx, self.job_id, one) for one in asked]

        if any(map(writes, asked)):
            return transact(self._engine, step)
        with read(self._engine) as tx:
            return step(tx)


def _code(row: DagCode) -> _Code:
    dag = _decode_dag(row.data)
    return _Code(row.fileloc, row.code_hash, row.source, {task.task_id: task for task in dag.tasks})


def _lost(error: str) -> Outcome:
    now = now_us()
    return Outcome("lost", started_at=now, ended_at=now, error=error)


def _spec(one: Claimed, code: _Code, now: int) -> TaskSpec:
    task = code.tasks.get(one.task_id)
    return task_spec(
        one,
        dispatch_id=one.id,
        max_tries=one.first_try + 1 + (task.retries if task else 0),
        operator=task.operator if task else "",
        code_hash=code.code_hash,
        fileloc=code.fileloc,
        start_date=one.start_date or now,
        next_method=one.next_method,
        run_us=one.run_us,
        execution_timeout_us=task.execution_timeout_us if task else None,
        run_as_user=task.run_as_user if task else None,
    )
