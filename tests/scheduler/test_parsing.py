"""DAG files of every kind in a real folder: a bad one harms nobody, a good one stays (S3, S12)."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roost.dag.model import ParsedFile
from roost.scheduler.parsing.store import store_file
from roost.support.processes import start_ticks
from tests.scheduler.watching import GOOD, Folder

BAD: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("# roost dag\ndef broken(:\n", "SyntaxError"),
    "missing": ("import roost_has_no_such_module_dag\n", "ModuleNotFoundError"),
    "raises": ("# roost dag\nraise ValueError('at the top level')\n", "at the top level"),
    "nul_error": ("# roost dag\nraise ValueError('a\\0b')\n", "a"),
    "surrogate_error": ("# roost dag\nraise ValueError('a\\ud800b')\n", ""),
    "exit": ("# roost dag\nimport sys\nsys.exit(3)\n", "SystemExit"),
    "os_exit": ("# roost dag\nimport os\nos._exit(0)\n", "ended its process"),
    "segfault": ("# roost dag\nimport ctypes\nctypes.string_at(0)\n", "ended its process"),
    "killed": ("# roost dag\nimport os\nos.kill(os.getpid(), 9)\n", "ended its process"),
    "memory": ("# roost dag\nx = [bytearray(1 << 28) for _ in range(64)]\n", "MemoryError"),
    "recursion": ("# roost dag\ndef f(): f()\nf()\n", "RecursionError"),
    "not_utf8": (b"# roost dag \xff\xfe\xfa\n", ""),
    "nul": (b"# roost dag\nx = 1\0\n", ""),
    "interrupt": ("# roost dag\nraise KeyboardInterrupt\n", ""),
    "cycle": (
        GOOD.format(dag_id="cycle", note="")
        + "    b = EmptyOperator(task_id='b'); c = EmptyOperator(task_id='c'); b >> c >> b\n",
        "cycle",
    ),
    "bad_cron": (GOOD.format(dag_id="cron", note="").replace("None", "'61 * * * *'"), "61"),
    "huge_delta": (
        "from datetime import timedelta\n"
        + GOOD.format(dag_id="huge", note="").replace("None", "timedelta.max"),
        "",
    ),
    "huge_slots": (
        GOOD.format(dag_id="slots", note="").replace('"a"', '"a", pool_slots=2**40'),
        "",
    ),
    "huge_runs": (
        GOOD.format(dag_id="runs", note="").replace("None,", "None, max_active_runs=2**40,"),
        "",
    ),
    "closes_fds": ("# roost dag\nimport os\nos.closerange(0, 1000)\n", ""),
}


@pytest.mark.timeout(120)
def test_bad_files_beside_good_ones(folder: Folder) -> None:
    """Each bad file has its own error; each good one is parsed, before and after it."""
    for number, (name, (text, _)) in enumerate(BAD.items()):
        folder.write(f"{number:02}_{name}.py", text)
        folder.good(f"{number:02}_ok.py")
    folder.good("~last.py", "last")
    folder.look()
    errors = {path[3:-3]: error for path, error in folder.errors().items()}
    for name, (_, what) in BAD.items():
        assert what in errors.get(name, "no error"), name
        assert errors[name].strip(), name
    assert {path for path in folder.errors() if path.endswith("_ok.py")} == set()
    assert {f"{n:02}_ok" for n in range(len(BAD))} | {"last"} <= set(folder.dags())
    assert not {"cycle", "cron"} & set(folder.dags())
    assert folder.look() == []


@pytest.mark.timeout(60)
def test_a_file_that_never_ends_is_killed_and_says_so(make: Callable[..., Folder]) -> None:
    folder = make(timeout_s=1.0)
    folder.write("forever.py", "# roost dag\nwhile True: pass\n")
    folder.write("asleep.py", "# roost dag\nimport time\ntime.sleep(1000)\n")
    folder.good("ok.py")
    folder.look()
    assert set(folder.dags()) == {"ok"}
    errors = folder.errors()
    assert set(errors) == {"asleep.py", "forever.py"}
    assert "longer than 1 s" in errors["asleep.py"]


@pytest.mark.timeout(60)
def test_what_a_file_leaves_behind_is_gone_and_delays_nobody(
    folder: Folder, tmp_path: Path
) -> None:
    """Threads and children, in its session and in one of their own; 50 MB of prints."""
    pids = tmp_path / "pids"
    folder.write(
        "leaves.py",
        textwrap.dedent(f"""
            import os, subprocess, sys, threading, time
            from roost.dag import DAG
            from roost.operators import EmptyOperator
            threading.Thread(target=time.sleep, args=(1000,)).start()
            children = [
                subprocess.Popen(["sleep", "1000"]),
                subprocess.Popen(["sleep", "1000"], start_new_session=True),
                subprocess.Popen(["sh", "-c", "setsid sh -c 'sleep 1000; :' & sleep 1000"]),
            ]
            if os.fork() == 0:
                time.sleep(1000)
            open({str(pids)!r}, "w").write(" ".join(str(child.pid) for child in children))
            for _ in range(50):
                print("x" * 1_000_000)
            with DAG("leaves", schedule=None):
                EmptyOperator(task_id="a")
        """),
    )
    folder.look()
    assert folder.errors() == {}
    assert set(folder.dags()) == {"leaves"}
    folder.watcher.close()
    for pid in pids.read_text().split():
        assert start_ticks(int(pid)) is None


def test_an_edit_is_seen_and_the_unchanged_cost_nothing(folder: Folder) -> None:
    folder.good("a.py", note="one")
    folder.good("b.py")
    folder.write("plain.py", "x = 1  # of no interest\n")
    assert folder.look() == ["a.py", "b.py"]
    assert folder.look() == []
    folder.good("a.py", note="another")
    assert folder.look() == ["a.py"]
    assert folder.note("a") == "another"
    assert folder.look() == []


def test_the_last_good_version_is_kept(folder: Folder) -> None:
    folder.good("a.py", note="good")
    folder.look()
    folder.write("a.py", "# roost dag\nraise ValueError('broken now')\n")
    folder.look()
    assert "broken now" in folder.errors()["a.py"]
    assert folder.dags() == {"a": "a.py"}
    assert folder.note("a") == "good"
    folder.good("a.py", note="mended")
    folder.look()
    assert folder.errors() == {}
    assert folder.note("a") == "mended"


def test_an_edit_of_a_helper_module_is_seen(folder: Folder) -> None:
    folder.write("helpers/__init__.py", "")
    folder.write("helpers/words.py", "NOTE = 'first'\n")
    folder.write(
        "a.py",
        "from helpers.words import NOTE\n"
        + GOOD.format(dag_id="a", note="x").replace("'x'", "NOTE"),
    )
    folder.good("b.py")
    assert folder.look() == ["a.py", "b.py"]
    assert folder.note("a") == "first"
    folder.write("helpers/words.py", "NOTE = 'the second'\n")
    assert folder.look() == ["a.py"]
    assert folder.note("a") == "the second"


def test_a_file_that_failed_is_tried_again_when_its_helper_is_mended(folder: Folder) -> None:
    folder.write("words.py", "NOTE = = 1\n")
    text = GOOD.format(dag_id="a", note="x").replace("'x'", "NOTE")
    folder.write("a.py", "from words import NOTE\n" + text)
    folder.write("b.py", "from missing_so_far import NOTE\n" + text.replace("'a'", "'b'"))
    folder.look()
    assert set(folder.errors()) == {"a.py", "b.py"}
    folder.write("words.py", "NOTE = 'mended'\n")
    folder.look()
    assert set(folder.errors()) == {"b.py"}
    folder.write("missing_so_far.py", "NOTE = 'here'\n")
    folder.look()
    assert folder.errors() == {}
    assert (folder.note("a"), folder.note("b")) == ("mended", "here")
    assert folder.look() == []


def test_a_file_that_is_gone_is_forgotten(folder: Folder) -> None:
    folder.good("a.py")
    folder.good("b.py")
    folder.write("bad.py", "# roost dag\n1/0\n")
    folder.look()
    (folder.path / "a.py").unlink()
    (folder.path / "bad.py").unlink()
    assert folder.look() == []
    assert folder.dags() == {"b": "b.py"}
    assert folder.errors() == {}
    folder.good("a.py")
    assert folder.look() == ["a.py"]
    assert folder.dags() == {"a": "a.py", "b": "b.py"}


def test_a_dag_that_its_file_defines_no_more_is_not_scheduled(folder: Folder) -> None:
    folder.write("a.py", GOOD.format(dag_id="one", note="") + GOOD.format(dag_id="two", note=""))
    folder.look()
    assert set(folder.dags()) == {"one", "two"}
    folder.good("a.py", "two")
    folder.look()
    assert set(folder.dags()) == {"two"}


@pytest.mark.parametrize("names", [("a.py", "b.py"), ("b.py", "a.py")])
def test_a_dag_id_in_two_files_belongs_to_the_first(folder: Folder, names: tuple[str, str]) -> None:
    owner, other = names
    folder.good(owner, "mine", note="owner")
    folder.look()
    folder.good(other, "mine", note="other")
    folder.look()
    assert folder.dags() == {"mine": owner}
    assert folder.note("mine") == "owner"
    error = folder.errors()[other]
    assert owner in error
    assert other in error
    folder.good(owner, "mine", note="owner again")
    folder.look()
    assert folder.note("mine") == "owner again"
    folder.good(owner, "renamed")
    folder.look()
    folder.look()  # the refused one is tried again
    assert folder.dags() == {"mine": other, "renamed": owner}
    assert folder.errors() == {}
    assert folder.look() == []


def test_two_new_files_with_one_dag_id_have_one_owner(folder: Folder) -> None:
    folder.good("a.py", "mine")
    folder.good("b.py", "mine")
    folder.look()
    (owner,) = folder.dags().values()
    assert set(folder.errors()) == {"a.py", "b.py"} - {owner}
    assert folder.look() == []


def test_a_dag_id_twice_in_one_file_is_an_error(folder: Folder) -> None:
    text = GOOD.format(dag_id="twice", note="") + GOOD.format(dag_id="twice", note="")
    head, _, tail = text.rpartition("with DAG(")
    folder.write(
        "a.py", f"{head.replace('):', ') as first:')}with DAG({tail.replace('):', ') as b:')}"
    )
    folder.look()
    assert "twice" in folder.errors()["a.py"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x = 1", False),
        ("# dag", False),
        ("# roost", False),
        ("# a Roost DAG", True),
        ("# AIRFLOW and dAg", True),
    ],
)
def test_safe_mode_s4(folder: Folder, text: str, wanted: bool) -> None:
    folder.write("a.py", text)
    assert folder.look() == (["a.py"] if wanted else [])
    assert folder.look() == []


def test_without_safe_mode_every_file_is_looked_at_s4(
    make: Callable[..., Folder],
) -> None:
    folder = make(safe_mode=False)
    folder.write("a.py", "x = 1")
    folder.write("notes.txt", "roost dag")
    folder.write(".hidden.py", "roost dag")
    folder.write("__pycache__/c.py", "roost dag")
    folder.write("deep/er/b.py", "y = 1")
    assert folder.look() == ["a.py", "deep/er/b.py"]


def test_a_file_that_loses_interest_loses_its_dags(folder: Folder) -> None:
    folder.good("a.py")
    folder.look()
    folder.write("a.py", "x = 1\n")
    assert folder.look() == []
    assert folder.dags() == {}
    assert folder.look() == []


def test_an_edit_during_the_parse_is_not_missed(folder: Folder) -> None:
    """The file changes itself while it is imported, as an editor may."""
    place = str(folder.path / "a.py")
    after = GOOD.format(dag_id="a", note="after")
    folder.write(
        "a.py", f"open({place!r}, 'w').write({after!r})\n" + GOOD.format(dag_id="a", note="before")
    )
    folder.look()
    folder.look()
    assert folder.note("a") == "after"
    folder.look()
    assert folder.look() == []


@pytest.mark.parametrize(
    "name", ["sp ace.py", "é\u0301.py", "%s :x {now}.py", "a'b\"c.py", "\\.py"]
)
def test_odd_file_names(folder: Folder, name: str) -> None:
    folder.good(name, "odd")
    folder.look()
    assert folder.dags() == {"odd": name}
    assert folder.look() == []


def test_a_file_name_that_is_no_text_harms_nobody(folder: Folder) -> None:
    odd = os.path.join(os.fsencode(folder.path), b"\xff.py")
    with open(odd, "wb") as file:
        file.write(GOOD.format(dag_id="odd", note="").encode())
    folder.good("ok.py")
    folder.look()
    assert "ok" in folder.dags()
    assert folder.look() == []


def test_texts_of_a_dag_that_no_database_may_hold(folder: Folder) -> None:
    """A NUL or half a character in what is only shown: an import error, or shown mended."""
    folder.write("a.py", GOOD.format(dag_id="a", note="x").replace("'x'", '"n\\0ul"'))
    folder.write("b.py", GOOD.format(dag_id="b", note="x").replace("'x'", '"s\\ud800ur"'))
    folder.good("ok.py")
    folder.look()
    assert "ok" in folder.dags()
    for name in ("a", "b"):
        assert name in folder.dags() or f"{name}.py" in folder.errors()
    assert folder.look() == []


def test_a_folder_that_does_not_exist_is_no_reason_to_stop(folder: Folder) -> None:
    folder.path.rmdir()
    assert folder.look() == []
    folder.path.mkdir()
    folder.good("a.py")
    assert folder.look() == ["a.py"]


def test_what_the_database_refuses_is_that_files_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the schema of a parsed file lets through by mistake."""

    def refusing(tx: Any, fileloc: str, parsed: ParsedFile, **rest: Any) -> str | None:
        if fileloc == "bad.py" and parsed.error is None:
            raise OverflowError("Python int too large")
        return store_file(tx, fileloc, parsed, **rest)

    monkeypatch.setattr("roost.scheduler.parsing.watcher.store_file", refusing)
    folder.good("bad.py")
    folder.good("ok.py")
    folder.look()
    assert set(folder.dags()) == {"ok"}
    assert "too large" in folder.errors()["bad.py"]
    assert folder.look() == []
