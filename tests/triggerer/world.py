"""Rows that a triggerer works on, made without a scheduler or a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from roost.dag.loader import load_dag_file, module_name
from roost.models import tables
from roost.support import typedjson
from roost.support.clock import now_us
from roost.support.crypto import KEY_FILE, Keyring

__all__ = ["HASH", "World", "numbers"]

HASH = "a" * 64
_FILE = "waits.py"
_WATCHER = 1_000_000  # the id of its trigger: behind those of tasks, which count from 1


def numbers(count: int) -> Iterator[str]:
    """``t000000``, ``t000001``, …"""
    return (f"t{number:06}" for number in range(count))


class World:
    """One DAG file with trigger classes, one run of it, and any number of deferred tasks.

    Args:
        url: of a database with the newest schema.
        dags_folder: where the DAG file is put.
        code: the text of the DAG file.
    """

    def __init__(self, url: str, dags_folder: Path, code: str) -> None:
        self.engine = sa.create_engine(url, poolclass=NullPool)
        self._keys = Keyring(file=dags_folder.parent / KEY_FILE)
        self._folder = dags_folder
        self.module = module_name(str(dags_folder / _FILE), str(dags_folder))
        (dags_folder / _FILE).write_text(code)
        now = now_us()
        with self.engine.begin() as db:
            found = load_dag_file(str(dags_folder / _FILE), code, str(dags_folder)).triggers
            db.execute(
                tables.dag_source.insert().values(
                    code_hash=HASH,
                    fileloc=_FILE,
                    source=code,
                    triggers=msgspec.json.encode(sorted(found)).decode(),
                    created_at=now,
                )
            )
            version = db.execute(
                tables.dag_version.insert()
                .values(
                    dag_id="waits", hash="b" * 64, code_hash=HASH, fileloc=_FILE, data="{}",
                    created_at=now,
                )
                .returning(tables.dag_version.c.id)
            ).scalar_one()  # fmt: skip
            self.run_id: int = db.execute(
                tables.dag_run.insert()
                .values(
                    dag_id="waits", run_id="r", run_type="manual", state="running",
                    version_id=version, run_after=now, queued_at=now,
                )
                .returning(tables.dag_run.c.id)
            ).scalar_one()  # fmt: skip

    def defer(self, triggers: Sequence[dict[str, Any]]) -> list[int]:
        """Store deferred tasks with these triggers; gives the ids of the triggers, in order.

        Each has ``due_at`` (a timer), or ``cls`` and ``kwargs`` (a poll trigger), and may override
        any column.
        """
        now = now_us()
        ti, trigger = tables.task_instance, tables.trigger
        with self.engine.begin() as db:
            first = (db.execute(sa.select(sa.func.max(ti.c.id))).scalar() or 0) + 1
            instances: list[dict[str, Any]] = [
                {
                    "id": first + index,
                    "dag_run_id": self.run_id,
                    "task_id": f"t{first + index:07}",
                    "state": "deferred",
                    "trigger_id": first + index,
                    "dispatch_id": first + index,
                    "try_number": 1,
                }
                for index in range(len(triggers))
            ]
            rows = [
                self._row(spec, number["id"], now)
                for spec, number in zip(triggers, instances, strict=True)
            ]
            if instances:
                db.execute(ti.insert(), instances)
                db.execute(trigger.insert(), rows)
        return [row["id"] for row in rows]

    def watch(self, cls: str, kwargs: str = "{}") -> int:
        """Store watcher ``w`` of asset ``a``, with its trigger of this class; gives its id."""
        columns = {
            "classpath": cls,
            "source": f"{self.module}:{cls}",
            "kwargs": kwargs,
            "code_hash": HASH,
            "fileloc": _FILE,
            "queue": "default",
        }
        watcher, trigger = tables.asset_watcher, tables.trigger
        with self.engine.begin() as db:
            db.execute(
                watcher.insert().values(dag_id="waits", uri="a", name="w", hash="h", **columns)
            )
            row = trigger.insert().values(
                id=_WATCHER,
                lane="poll",
                next_kwargs="{}",
                created_at=now_us(),
                watcher_hash="h",
                **columns,
            )
            db.execute(row)
        return _WATCHER

    def add_file(self, fileloc: str, code: str) -> dict[str, Any]:
        """Store another DAG file, without executing it here.

        Args:
            fileloc: its name below the DAGs folder, where it is not put.
            code: its text; the trigger class that is deferred is called ``Late``.

        Returns:
            What the triggers of its class ``Late`` override.
        """
        source = f"{module_name(str(self._folder / fileloc), str(self._folder))}:Late"
        code_hash = hashlib.sha256(code.encode()).hexdigest()
        with self.engine.begin() as db:
            db.execute(
                tables.dag_source.insert().values(
                    code_hash=code_hash,
                    fileloc=fileloc,
                    source=code,
                    triggers=msgspec.json.encode([source]).decode(),
                    created_at=now_us(),
                )
            )
        return {"cls": "Late", "source": source, "code_hash": code_hash, "fileloc": fileloc}

    def _row(self, spec: dict[str, Any], number: int, now: int) -> dict[str, Any]:
        spec = dict(spec)
        cls = spec.pop("cls", "DateTimeTrigger")
        kwargs = typedjson.encode(spec.pop("kwargs", {})).decode()
        return {
            "id": number,
            "ti_id": number,
            "dag_run_id": self.run_id,
            "dispatch_id": number,
            "lane": "timer" if "due_at" in spec else "poll",
            "classpath": cls,
            "source": f"{self.module}:{cls}",
            "kwargs": kwargs,
            "next_method": "execute_complete",
            "next_kwargs": "{}",
            "code_hash": HASH,
            "fileloc": _FILE,
            "queue": "default",
            "created_at": now,
            "due_at": None,
        } | spec

    def rows(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        """Run one statement and give its rows."""
        with self.engine.begin() as db:
            result = db.execute(sa.text(sql), params)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def events(self) -> dict[int, dict[str, Any]]:
        """Every stored event by the id of its trigger, the payload decoded."""
        found = self.rows("SELECT trigger_id, epoch, kind, payload, error FROM trigger_event")
        for row in found:
            text = row["payload"]
            row["value"] = None if text is None else typedjson.decode(self._keys.unseal(text, "it"))
        return {row.pop("trigger_id"): row for row in found}

    def count(self, condition: str) -> int:
        """How many trigger rows meet a condition."""
        (row,) = self.rows(f"SELECT count(*) AS n FROM trigger WHERE {condition}")  # noqa: S608
        return int(row["n"])

    def settle(self, trigger_ids: Sequence[int]) -> None:
        """What the scheduler does with a trigger that fired, timed out or was cleared: it goes."""
        with self.engine.begin() as db:
            db.execute(tables.trigger.delete().where(tables.trigger.c.id.in_(trigger_ids)))
