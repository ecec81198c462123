"""One DAG file, parsed: what a parser child reports (S12)."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping

from roost.dag.foresee import foresee
from roost.dag.loader import LoadedFile, is_packed, load_dag_file, policy_file, read_source
from roost.dag.model import ParsedFile, SerializedDag, Upcoming
from roost.dag.schedule import Timetable
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError
from roost.support.clock import now_us
from roost.support.masking import mask

__all__ = ["parse_dag_file"]

_HOME = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def parse_dag_file(
    path: str, dags_folder: str, past: Mapping[str, tuple[int, int]] | None = None
) -> ParsedFile:
    """Load the file at ``path`` and describe its DAGs. Never raises for what the file does.

    An exception of the file, SystemExit included, becomes ``error``: the traceback from the
    file's own lines on; of a :class:`DagError` only the line and the message. KeyboardInterrupt
    passes.

    Args:
        path: the file.
        dags_folder: the configured folder.
        past: by dag_id, data interval of the newest scheduled run, for timetables of the
            user's own.
    """
    source = ""
    try:
        source = read_source(path)
        loaded = load_dag_file(path, source, dags_folder)
        described = [serialize_dag(dag) for dag in loaded.dags.values()]
        return ParsedFile(
            code_hash=loaded.code_hash,
            source=source,
            helpers=loaded.helpers,
            dags=described,
            upcoming=_upcoming(loaded, described, past or {}),
            triggers=sorted(loaded.triggers),
            texts=loaded.texts,
            warnings=_misplaced(path, source),
        )
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return ParsedFile(
            code_hash="",
            source=source,
            helpers=sorted(policy_file(dags_folder)),
            dags=[],
            triggers=[],
            error=_explain(error, os.path.abspath(path)),
        )


def _upcoming(
    loaded: LoadedFile, described: list[SerializedDag], past: Mapping[str, tuple[int, int]]
) -> dict[str, Upcoming]:
    """What timetables of the user's own say comes next; an error of theirs is the file's."""
    found: dict[str, Upcoming] = {}
    for dag in described:
        timetable = loaded.dags[dag.dag_id].schedule
        if dag.timetable.kind == "custom" and isinstance(timetable, Timetable):
            found[dag.dag_id] = foresee(timetable, dag, past.get(dag.dag_id), now_us())
    return found


def _misplaced(path: str, source: str) -> list[str]:
    """``__init__`` at the root of an archive makes no package of it (S15)."""
    name = os.path.basename(path)
    if not name.startswith("__init__.") or not is_packed(source):
        return []
    return [f"{name} stands at the root of the archive, which is no package; name it otherwise"]


def _explain(error: BaseException, path: str) -> str:
    """The traceback without our own frames around the file; its last line says what is wrong."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((i for i, frame in enumerate(frames) if frame.filename == path), None)
    if first is None:
        if isinstance(error, DagError | OSError):
            return str(error)
        return mask("".join(traceback.format_exception_only(error)).rstrip())
    if isinstance(error, DagError):
        # What we object to needs no traceback: the author's own line and our words.
        last = [frame for frame in frames[first:] if not _is_ours(frame.filename)][-1]
        return mask(f"{last.filename}:{last.lineno}: {error}")
    inner = error.__traceback__
    for _ in range(first):
        inner = inner.tb_next if inner is not None else None
    text = mask("".join(traceback.format_exception(error.with_traceback(inner))).rstrip())
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "airflow":
        # On the last line, which is the one that listings of errors in brief show.
        text += "; what Airflow has there is in roost.dag, .operators, .sensors: docs/airflow.md"
    return text


def _is_ours(file: str) -> bool:
    return file.startswith(_HOME)
