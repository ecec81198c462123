"""Loading and parsing DAG files (S3, S5, S11, S12) and the identity of code."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest

from roost.dag.loader import load_dag_file, module_name, read_source
from roost.dag.parse import parse_dag_file
from roost.dag.registry import resolve_trigger
from roost.dag.trigger import BaseTrigger
from roost.exceptions import DagError
from tests.dag.case import load_text

PLAIN = "from roost.dag import DAG\ndag = DAG('plain')\n"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test loads."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules)


def test_s5_only_dags_at_the_top_level_are_found(tmp_path: Path) -> None:
    text = """
    from roost.dag import DAG, dag

    named = DAG("named")
    again = named

    with DAG("unnamed"):
        pass

    @dag
    def called():
        pass

    called()

    @dag
    def never_called():
        pass

    def local():
        x = DAG("local")
        with DAG("local_with"):
            pass
        called.__wrapped__
        return None

    local()

    def inner():
        @dag
        def local_decorated():
            pass
        local_decorated()

    inner()
    """
    loaded = load_text(tmp_path, textwrap.dedent(text))
    assert sorted(loaded.dags) == ["called", "named", "unnamed"]
    assert all(dag.fileloc == str(tmp_path / "file.py") for dag in loaded.dags.values())


def test_two_dags_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DagError, match="two DAGs of this file are called 'a'"):
        load_text(tmp_path, "from roost.dag import DAG\nx = DAG('a')\ny = DAG('a')\n")


def test_the_given_text_runs_under_the_real_name(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text("raise RuntimeError('the file has changed since')")
    source = PLAIN + "def boom():\n    raise ValueError('here')\n"
    loaded = load_dag_file(str(path), source, str(tmp_path))
    assert loaded.module.__file__ == str(path)
    assert inspect.getsource(loaded.module.boom).startswith("def boom")
    try:
        loaded.module.boom()
    except ValueError:
        shown = traceback.format_exc()
    assert f'"{path}", line 4, in boom' in shown
    assert "raise ValueError('here')" in shown


def test_the_module_name_is_the_same_anywhere_and_its_own(tmp_path: Path) -> None:
    names = {
        module_name(str(tmp_path / place), str(tmp_path))
        for place in ("etl.py", "sub/etl.py", "a-b.py", "a_b.py", "json.py")
    }
    assert len(names) == 5
    assert all(name.isidentifier() for name in names)
    elsewhere = module_name("/other/place/sub/etl.py", "/other/place")
    assert elsewhere in names


def test_helpers_are_listed_hashed_and_read_anew(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("")
    helper = tmp_path / "lib" / "names.py"
    helper.write_text("NAME = 'one'\n")
    text = "from roost.dag import DAG\nfrom lib.names import NAME\nd = DAG(NAME)\n"
    first = load_text(tmp_path, text)
    assert (list(first.dags), first.helpers) == (["one"], ["lib/__init__.py", "lib/names.py"])
    assert load_text(tmp_path, text).code_hash == first.code_hash
    helper.write_text("NAME = 'two-and-more'\n")
    second = load_text(tmp_path, text)
    assert list(second.dags) == ["two-and-more"]
    assert second.code_hash != first.code_hash
    assert load_text(tmp_path, text + "# changed\n").code_hash != second.code_hash
    # A file that needs no helper has none, although an earlier one imported some.
    assert load_text(tmp_path, PLAIN).helpers == []


def test_helpers_in_bare_folders_are_found(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "names.py").write_text("NAME = 'n'\n")
    text = "from roost.dag import DAG\nfrom bare import names\nd = DAG(names.NAME)\n"
    assert load_text(tmp_path, text).helpers == ["bare/names.py"]


def test_the_hash_is_the_same_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "extra_names.py").write_text("NAME = 'n'\n")
    text = "import extra_names\n" + PLAIN
    here = load_text(tmp_path, text)
    path = str(tmp_path / "file.py")
    script = (
        "import sys; from roost.dag.parse import parse_dag_file\n"
        "import msgspec; p = parse_dag_file(*sys.argv[1:])\n"
        "sys.stdout.write(msgspec.json.encode(p).decode())"
    )
    command = [sys.executable, "-c", script, path, str(tmp_path)]
    there = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert there["code_hash"] == here.code_hash
    assert there["helpers"] == ["extra_names.py"]


def test_an_installed_module_of_the_same_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('not me')")
    loaded = load_text(tmp_path, "import colorsys\n" + PLAIN)
    assert list(loaded.dags) == ["plain"]


TRIGGERS = """
from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import BaseTrigger, TriggerEvent

class Mine(BaseTrigger):
    def serialize(self):
        return ("whatever.Mine", {})
    async def run(self):
        yield TriggerEvent(1)

class Outer:
    class Inner(Mine):
        pass

def make():
    class Local(Mine):
        pass
    return Local

hidden = make()
dag = DAG("t")
"""


def test_trigger_classes_are_known_by_their_true_name(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, TRIGGERS)
    name = loaded.module.__name__
    mine = {source for source in loaded.triggers if source.startswith(f"{name}:")}
    assert mine == {f"{name}:Mine", f"{name}:Outer.Inner"}
    assert "roost.triggers.file:FileTrigger" in loaded.triggers


def test_a_new_version_of_a_file_replaces_its_classes(tmp_path: Path) -> None:
    old = load_text(tmp_path, TRIGGERS)
    new = load_text(tmp_path, TRIGGERS + "\n")
    source = f"{old.module.__name__}:Mine"
    assert old.triggers[source] is not new.triggers[source]
    assert new.triggers[source] is new.module.Mine


def test_triggers_of_helpers_are_known(tmp_path: Path) -> None:
    (tmp_path / "my_triggers.py").write_text(TRIGGERS)
    loaded = load_text(tmp_path, "import my_triggers\n" + PLAIN)
    source = "my_triggers:Mine"
    assert resolve_trigger(source, loaded.triggers, loaded) is loaded.triggers[source]


def test_a_trigger_name_is_checked_before_any_import(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported!')")
    loaded = load_text(tmp_path, TRIGGERS)
    for source in ("evil:Trigger", "os:system", "roost.dag.dag:DAG", "x", "roost.triggers:_x y"):
        with pytest.raises(DagError, match="is not registered"):
            resolve_trigger(source, loaded.triggers, loaded)
    assert "evil" not in sys.modules


def test_resolving_built_in_and_wrong_names() -> None:
    found = resolve_trigger("roost.triggers.file:FileTrigger", [], None)
    assert issubclass(found, BaseTrigger)
    with pytest.raises(DagError, match="not a trigger class"):
        resolve_trigger("roost.triggers.file:matching_files", [], None)
    with pytest.raises(DagError, match="cannot be found"):
        resolve_trigger("roost.triggers.file:Nothing", [], None)


def parsed(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "bad.py"
    path.write_bytes(data)
    result = parse_dag_file(str(path), str(tmp_path))
    assert result.dags == []
    assert result.error is not None
    return result.error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("from airflow.models import DAG", "'airflow'; what Airflow has there is in roost.dag, "),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("from roost.dag import DAG\nd = DAG('a b')", "dag_id 'a b' must be"),
        ("from roost.dag import DAG\nd = DAG('a', schedule='x')", "DAG 'a': "),
        ("def f(): f()\nf()", "RecursionError"),
    ],
)
def test_s12_errors_of_a_file_are_reported(tmp_path: Path, text: str, expected: str) -> None:
    error = parsed(tmp_path, text.encode())
    assert expected in error.splitlines()[-1]
    # From the file's own lines on: our frames around it say nothing.
    assert "loader.py" not in error
    assert "parse.py" not in error


def test_s12_files_that_are_no_python_text(tmp_path: Path) -> None:
    assert "bad.py:2: not UTF-8" in parsed(tmp_path, b"x = 1\ny = '\xff'\n")
    assert "NUL" in parsed(tmp_path, b"x = 1\0\n")
    missing = parse_dag_file(str(tmp_path / "gone.py"), str(tmp_path)).error
    assert missing is not None
    assert "gone.py" in missing


def test_a_byte_order_mark_and_line_ends_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())
    source = read_source(str(path))
    assert source.startswith("from")
    assert "\r\n" in source
    assert list(load_dag_file(str(path), source, str(tmp_path)).dags) == ["plain"]


def test_a_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(sys.modules)
    assert parsed(tmp_path, b"from roost.dag import DAG\nwith DAG('a'):\n    1 / 0\n")
    assert {name for name in set(sys.modules) - before if name.startswith("roost_dag")} == set()
    assert list(load_text(tmp_path, PLAIN).dags) == ["plain"]


def test_s11_a_cycle_is_an_import_error(tmp_path: Path) -> None:
    text = """
from roost.dag import DAG
from roost.operators import EmptyOperator
with DAG("d"):
    a = EmptyOperator(task_id="a")
    a >> EmptyOperator(task_id="b") >> a
"""
    error = parsed(tmp_path, text.encode())
    assert error.splitlines()[-1].endswith("DAG 'd' has a cycle: a -> b -> a")


def test_importing_the_authoring_api_is_light() -> None:
    """DAG authors pay neither for the database nor for templates they do not use."""
    script = (
        "import sys, roost.dag, roost.operators, roost.sensors, roost.dag.run\n"
        "heavy = {'sqlalchemy', 'alembic', 'click', 'jinja2', 'asyncio', 'croniter', 'anyio',"
        "         'importlib.metadata', 'urllib.parse'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    environ = {**os.environ, "PYTHONWARNINGS": ""}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    assert done.stdout.strip() == "[]"
