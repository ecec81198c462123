"""What tasks and triggers read of tasks: whole values, elements of them, lengths (S56, H17)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

import msgspec

from roost.models.engine import Tx
from roost.models.queries import xcoms
from roost.models.queries.xcoms import XComPlace
from roost.support.elements import elements_of, list_of
from roost.support.task_requests import XComPull

__all__ = ["Puller"]

_NULL = msgspec.Raw(b"null")
_KEPT = 8


class Asking(Protocol):
    """Whoever asks, a task or a trigger: its DAG and its run."""

    @property
    def dag_id(self) -> str: ...

    @property
    def run_id(self) -> str: ...


class Puller:
    """Answers :class:`XComPull`. Called from several threads.

    The values that mapped tasks take single elements of are kept taken apart, the last few of
    them: 10,000 instances read and parse a list of 10,000 once, not each.
    """

    def __init__(self) -> None:
        self._apart: OrderedDict[XComPlace, list[msgspec.Raw]] = OrderedDict()
        self._lock = threading.Lock()

    def pull(self, tx: Tx, asking: Asking, request: XComPull) -> list[msgspec.Raw]:
        """The entries of the reply, one for each of ``task_ids``.

        Args:
            tx: where to read.
            asking: whose DAG and run it is about, unless the request says so.
            request: what is asked.

        Raises:
            RoostException: an element of something that has none is asked for.
        """
        dag_id, run_id = request.dag_id or asking.dag_id, request.run_id or asking.run_id
        if request.gather:
            return [_gather(tx, dag_id, run_id, id_, request) for id_ in request.task_ids or ()]
        if request.element is not None or request.measure:
            places = xcoms.locate(
                tx,
                dag_id=dag_id,
                run_id=run_id,
                task_ids=request.task_ids or (),
                key=request.key or "",
                map_index=request.map_index,
                include_prior_dates=request.include_prior_dates,
            )
            return [self._part(tx, place, request) for place in places]
        values = xcoms.pull(
            tx,
            dag_id=dag_id,
            run_id=run_id,
            task_ids=request.task_ids,
            key=request.key,
            map_index=request.map_index,
            include_prior_dates=request.include_prior_dates,
        )
        return [_NULL if value is None else msgspec.Raw(value.encode()) for value in values]

    def _part(self, tx: Tx, place: XComPlace | None, request: XComPull) -> msgspec.Raw:
        if place is None:
            return _NULL
        if request.element is None:
            return msgspec.Raw(msgspec.json.encode(place.length))
        elements = self._elements(tx, place)
        return elements[request.element] if request.element < len(elements) else _NULL

    def _elements(self, tx: Tx, place: XComPlace) -> list[msgspec.Raw]:
        with self._lock:
            if place in self._apart:
                self._apart.move_to_end(place)
                return self._apart[place]
            # Under the lock: many instances ask for the same value at the same moment.
            self._apart[place] = found = elements_of(xcoms.value_at(tx, place) or "[]")
            while len(self._apart) > _KEPT:
                self._apart.popitem(last=False)
            return found


def _gather(tx: Tx, dag_id: str, run_id: str, task_id: str, request: XComPull) -> msgspec.Raw:
    key = request.key or ""
    if request.measure:
        count = xcoms.measure(tx, dag_id=dag_id, run_id=run_id, task_id=task_id, key=key)
        return msgspec.Raw(msgspec.json.encode(count))
    found = xcoms.gather(
        tx, dag_id=dag_id, run_id=run_id, task_id=task_id, key=key, element=request.element
    )
    values = [msgspec.Raw(text.encode()) for text in found]
    if request.element is None:
        return list_of(values)
    return values[0] if values else _NULL
