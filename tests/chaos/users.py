"""What users do meanwhile, in a process of its own: clear and mark what waits, send events.

By the functions of ``roost tasks clear`` and ``roost tasks mark``, and by the command ``roost
events send`` itself. The witness holds what was meant before it is done and what came of it
afterwards; an edit without an end was cut off by the database, and may have been made or not.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from roost.cli.clear import ring_all
from roost.cli.main import cli
from roost.models import state_edits
from roost.models.engine import is_passing, open_engine, transact
from roost.models.state_edits import Edited, Mark
from roost.support.config import Config, load_config
from roost.support.osproc import die_with_parent
from tests.chaos.scripts import note

__all__ = ["Users"]

EDITS = {"clear": 4, "success": 2, "failed": 2, "skipped": 1}
CALM = "calm"  # a file: users edit nothing any more
_PAUSE_S = (0.1, 1.0)
_MOST_EDITS = 3  # of one task instance
_LIVELY = 0.15  # so many of the edits are of what is queued or runs: a wish, granted at its end
_EDITABLE = (
    "SELECT t.id, r.dag_id, r.run_id, t.task_id, t.map_index, t.trigger_id, t.state "
    "FROM task_instance t JOIN dag_run r ON r.id = t.dag_run_id "
    "WHERE t.state IN ('deferred', 'queued', 'running') AND t.task_id <> 'total' ORDER BY t.id"
)
_ASKED = (
    "SELECT external_key FROM trigger WHERE external_key LIKE '%\\%asked' ESCAPE '\\' "
    "AND fired_at IS NULL ORDER BY id"
)


class Users:
    """The process, as the trial sees it.

    Args:
        folder: of the trial.
        env: of a host: its configuration, and the mutant.
    """

    def __init__(self, folder: Path, env: dict[str, str], seed: int) -> None:
        self._folder = folder
        with (folder / "users.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.users", str(seed)],
                env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),
            )  # fmt: skip

    def calm(self) -> None:
        """From now on they only answer what waits for them."""
        (self._folder / CALM).touch()

    def close(self) -> list[str]:
        """End them; what went wrong with them, which would say nothing of Roost."""
        code = self._process.poll()
        self._process.terminate()
        self._process.wait()
        return [] if code is None else [f"the users ended by themselves with {code}"]


class _User:
    """One of them after the other, all with one database connection."""

    def __init__(self, config: Config, engine: Engine, seed: int) -> None:
        self._config, self._engine = config, engine
        self._rng = random.Random(seed)  # noqa: S311 - what a seed gives is to be seen again
        self._edits = 0
        self._edited: dict[int, int] = {}
        self._calm = Path(os.environ["ROOST_CHAOS"]) / CALM

    def live(self) -> None:
        """For ever; a database that is away is asked again."""
        while True:
            try:
                if not self._calm.exists():
                    self._edit()
                self._answer()
            except Exception as error:
                if not is_passing(error):
                    raise
                time.sleep(0.5)
            time.sleep(self._rng.uniform(*_PAUSE_S))

    def _rows(self, sql: str) -> list[Any]:
        reading = self._engine.execution_options(roost_reading=True)
        with reading.connect() as db:
            return list(db.execute(text(sql)).all())

    def _edit(self) -> None:
        lively = self._rng.random() < _LIVELY
        rows = [
            row
            for row in self._rows(_EDITABLE)
            if self._edited.get(row.id, 0) < _MOST_EDITS and (row.state != "deferred") == lively
        ]
        if not rows:
            return
        row = self._rng.choice(rows)
        what = self._rng.choices(list(EDITS), list(EDITS.values()))[0]
        if row.dag_id == "mapped":
            what = "clear"  # what is below takes what all of them have brought
        self._edits += 1
        self._edited[row.id] = self._edited.get(row.id, 0) + 1
        actor = f"user {self._edits}"
        key = [row.dag_id, row.run_id, row.task_id, row.map_index]
        note("edit", actor=actor, ti=key, how=what, trigger=row.trigger_id)
        done = transact(self._engine, partial(_do, ti_id=row.id, what=what, actor=actor))
        note("edited", actor=actor, moved=done.moved, wished=done.wished)
        ring_all(self._config, self._engine, wished=done.wished)

    def _answer(self) -> None:
        if keys := [str(row[0]) for row in self._rows(_ASKED)]:
            key = self._rng.choice(keys)
            note("send", key=key)
            try:
                cli.main(["events", "send", key, "--payload", json.dumps(key)])
            except SystemExit as end:  # not 0: it says why, and the key is asked for again
                note("sent", key=key, code=end.code)


def _do(tx: Any, ti_id: int, what: str, actor: str) -> Edited:
    if what == "clear":
        return state_edits.clear(tx, [ti_id], actor=actor)
    state: Mark = {"success": "success", "failed": "failed"}.get(what, "skipped")  # type: ignore[assignment]
    return state_edits.mark(tx, [ti_id], state, actor=actor)


def main() -> None:
    """Be the users until terminated."""
    config = load_config()
    engine = open_engine(config.database.url, sqlite_synchronous="normal")
    _User(config, engine, int(sys.argv[1])).live()


if __name__ == "__main__":
    main()
