"""Which files are DAG files: folders, safe mode, ignore files, packages (S3, S4, S13-S18)."""

from __future__ import annotations

import io
import os
import py_compile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from roost.scheduler.parsing.folder import find_files, is_candidate
from tests.scheduler.watching import GOOD, Folder

DAG_A = GOOD.format(dag_id="zipped", note="one")


def tree(root: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def zipped(members: dict[str, str | bytes]) -> bytes:
    """A zip file of these."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return buffer.getvalue()


# ---------------------------------------------------------------------- folders and ignore files

SEED_FILES = (
    "project_a_dag_1.py",
    "TESTING_project_a.py",
    "tenant_1.py",
    "project_a/dag_1.py",
    "tenant_1/dag_1.py",
    "project_b/dag_1.py",
    "tenant_x/dag_1.py",
)


def test_the_patterns_of_the_seed(tmp_path: Path) -> None:
    """S16, S17: patterns ``project_a`` and ``tenant_[\\d]`` leave out exactly the seed's files."""
    tree(tmp_path, *SEED_FILES)
    (tmp_path / ".airflowignore").write_text("project_a\ntenant_[\\d]\n")
    assert list(find_files(str(tmp_path))) == ["project_b/dag_1.py", "tenant_x/dag_1.py"]


@pytest.mark.parametrize("name", [".roostignore", ".airflowignore"])
def test_patterns_see_the_path_below_their_own_folder(tmp_path: Path, name: str) -> None:
    """S16: a pattern that occurs in the path of the DAGs folder itself ignores nothing."""
    root = tmp_path / "project_a"
    tree(root, "kept.py", "sub/project_a.py", "sub/kept.py")
    (root / name).write_text("project_a  # the old one\n# everything: .*\n\n")
    assert list(find_files(str(root))) == ["kept.py", "sub/kept.py"]


def test_an_ignore_file_holds_for_its_folder_and_below(tmp_path: Path) -> None:
    """S18: one in a subfolder is searched relative to it, applies only there, and inherits."""
    tree(tmp_path, "x.py", "y.py", "sub/x.py", "sub/y.py", "sub/deep/x.py", "sub/deep/z.py")
    (tmp_path / ".roostignore").write_text("z\\.py$\n")
    (tmp_path / "sub/.airflowignore").write_text("^x\n^deep/x\n")
    assert list(find_files(str(tmp_path))) == ["x.py", "y.py", "sub/y.py"]


def test_a_matching_folder_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S17: a folder that matches is pruned with all that is in it."""
    tree(tmp_path, "old/deep/a.py", "new/a.py")
    (tmp_path / ".roostignore").write_text("^old$\n")
    opened: list[str] = []
    scan = os.scandir

    def noted(place: str) -> object:
        opened.append(os.path.relpath(place, tmp_path))
        return scan(place)

    monkeypatch.setattr("os.scandir", noted)
    assert list(find_files(str(tmp_path))) == ["new/a.py"]
    assert opened == [".", "new"]


def test_globs_as_in_gitignore(tmp_path: Path) -> None:
    """S16: ``core.dag_ignore_file_syntax = glob`` reads the same files as .gitignore's syntax."""
    tree(tmp_path, "a_test.py", "a.py", "old/a.py", "x/old/a.py", "x/y/z.py", "tmp1.py", "keep1.py")
    (tmp_path / ".airflowignore").write_text("*_test.py\n/old/\nx/**/z.py\n*[0-9].py\n!keep?.py\n")
    assert list(find_files(str(tmp_path), "glob")) == ["a.py", "keep1.py", "x/old/a.py"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    """S3: a linked folder is searched; a circle of links ends, and a folder counts once."""
    outside, root = tmp_path / "outside", tmp_path / "dags"
    tree(outside, "linked.py")
    tree(root, "a.py", "sub/b.py")
    (root / "link").symlink_to(outside)
    (root / "sub/up").symlink_to(root)
    (root / "sub/self").symlink_to(root / "sub/self")
    (root / "again").symlink_to(outside)
    assert list(find_files(str(root))) == ["a.py", "again/linked.py", "sub/b.py"]


def test_what_is_no_regular_file_is_no_dag_file(tmp_path: Path) -> None:
    """S3: opening a named pipe would stop the scheduler."""
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    tree(tmp_path, "a.py", ".hidden.py", ".git/b.py", "__pycache__/c.py", "folder.zip/d.py")
    assert list(find_files(str(tmp_path))) == ["a.py", "folder.zip/d.py"]


def test_ignoring_takes_effect_at_the_next_look(folder: Folder) -> None:
    """S16: an ignored file's DAG is not scheduled any more, and comes back with the pattern."""
    folder.good("a.py")
    folder.good("b.py")
    folder.look()
    assert set(folder.dags()) == {"a", "b"}
    folder.write(".roostignore", "^b\n")
    folder.look()
    assert set(folder.dags()) == {"a"}
    folder.write(".roostignore", "^nothing\n")
    folder.look()
    assert set(folder.dags()) == {"a", "b"}


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)*$", "((a*)b){2,}", "(a?){40}$", r"(?:x|[)(*]y\))*z"]
)
def test_a_pattern_that_might_never_end_is_refused(folder: Folder, pattern: str) -> None:
    """S16: it is matched in the scheduler, which nothing can interrupt."""
    folder.good("a" * 60 + ".py")
    folder.write(".roostignore", pattern + "\n")
    folder.look()
    (error,) = folder.errors().values()
    assert ".roostignore:1: " in error
    assert "it repeats a group" in error
    assert set(folder.dags()) == {"a" * 60}


@pytest.mark.parametrize(
    "pattern",
    [
        r"(old|older)/.*\.py",
        "^a(bc)+$",
        "(x.*)?z",
        r"(a+\)[+)]*)b*",
        "(?:skip|drop)_?$",
        "[]()*]*z",
    ],
)
def test_a_pattern_that_ends_is_taken(folder: Folder, pattern: str) -> None:
    """S16: alternatives and repetitions are fine where they do not nest."""
    folder.good("kept.py")
    folder.write(".roostignore", pattern + "\n")
    folder.look()
    assert folder.errors() == {}
    assert set(folder.dags()) == {"kept"}


def test_a_bad_pattern_is_one_import_error(folder: Folder) -> None:
    """S16: it names the file and the line; the other lines hold."""
    folder.good("a.py")
    folder.good("b.py")
    folder.write(".airflowignore", "^b\n(unclosed\n")
    folder.look()
    assert set(folder.dags()) == {"a"}
    (error,) = folder.errors().values()
    assert error.count("\n") == 0
    assert ".airflowignore:2: '(unclosed' is not a valid pattern" in error
    folder.write(".airflowignore", "^b\n")
    folder.look()
    assert (set(folder.dags()), folder.errors()) == ({"a"}, {})


# ---------------------------------------------------------------------- safe mode


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("from roost.dag import DAG", True),
        ("FROM AIRFLOW IMPORT dag", True),
        ("airflow but no d.a.g", False),
        ("a DAG of something else", False),
        ("", False),
    ],
)
def test_safe_mode(tmp_path: Path, text: str, wanted: bool) -> None:
    """S4: the bytes contain ``dag`` and (``roost`` or ``airflow``), whatever their case."""
    (tmp_path / "f.py").write_text(text)
    (tmp_path / "p.zip").write_bytes(zipped({"f.py": text, "other.py": "roost dag"}))
    assert is_candidate(str(tmp_path / "f.py")) is wanted
    assert is_candidate(str(tmp_path / "p.zip/f.py")) is wanted


def test_without_safe_mode_every_file_is_parsed(make: Callable[..., Folder]) -> None:
    """S4: ``core.dag_discovery_safe_mode = false``."""
    folder = make(safe_mode=False)
    folder.write("plain.py", "x = 1\n")
    assert folder.look() == ["plain.py"]


# ---------------------------------------------------------------------- packages


def test_only_the_root_of_a_package_is_loaded(folder: Folder) -> None:
    """S13, S14: its folders are packages for the root's modules, before anything of that name."""
    folder.write("helper.py", "raise SystemExit('the wrong helper')\n")
    folder.write(
        "p.zip",
        zipped(
            {
                "dags.py": "import helper, pkg.inner\n" + DAG_A,
                "helper.py": "NAME = 'h'\n",
                "pkg/inner.py": "import roost.dag  # a DAG file? no\nraise_if_loaded = 1\n",
                "pkg/not_a_dag.py": GOOD.format(dag_id="inner", note=""),
            }
        ),
    )
    assert folder.look() == ["p.zip/dags.py"]
    assert (folder.dags(), folder.errors()) == ({"zipped": "p.zip/dags.py"}, {})
    assert folder.look() == []


def test_a_changed_package_is_parsed_again_and_a_deleted_one_forgotten(folder: Folder) -> None:
    """S13: a helper inside counts like the DAG file."""
    members = {"dags.py": "from helper import NOTE\n" + DAG_A.replace("'one'", "NOTE")}
    folder.write("p.zip", zipped({**members, "helper.py": "NOTE = 'one'\n"}))
    folder.look()
    assert folder.note("zipped") == "one"
    folder.write("p.zip", zipped({**members, "helper.py": "NOTE = 'another'\n"}))
    assert folder.look() == ["p.zip/dags.py"]
    assert folder.note("zipped") == "another"
    (folder.path / "p.zip").unlink()
    folder.look()
    assert folder.dags() == {}


def test_each_module_of_a_package_has_its_own_error(folder: Folder) -> None:
    """S12, S13: the traceback shows the module's line, and the others are loaded."""
    bad = "# roost dag\nimport helper\nhelper.fail()\n"
    helper = "def fail():\n    raise ValueError('from inside')\n"
    folder.write("p.zip", zipped({"dags.py": DAG_A, "bad.py": bad, "helper.py": helper}))
    folder.look()
    assert folder.dags() == {"zipped": "p.zip/dags.py"}
    assert set(folder.errors()) == {"p.zip/bad.py"}
    error = folder.errors()["p.zip/bad.py"]
    assert 'p.zip/bad.py", line 3' in error and "    helper.fail()" in error
    assert 'p.zip/helper.py", line 2' in error and "    raise ValueError('from inside')" in error


def test_a_compiled_module(folder: Folder, tmp_path: Path) -> None:
    """S13: a ``.pyc`` at the root is loaded; one of another Python says so."""
    source = tmp_path / "compiled.py"
    source.write_text(DAG_A)
    compiled = Path(py_compile.compile(str(source), str(tmp_path / "c.pyc")) or "").read_bytes()
    folder.write("p.zip", zipped({"dags.pyc": compiled}))
    folder.write("old.zip", zipped({"dags.pyc": b"\x01\x02\r\n" + compiled[4:]}))
    folder.look()
    assert folder.dags() == {"zipped": "p.zip/dags.pyc"}
    assert "was not compiled by Python 3" in folder.errors()["old.zip/dags.pyc"]


def test_init_at_the_root_is_warned_about(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """S15."""
    folder.write("p.zip", zipped({"__init__.py": "# roost dag\n", "dags.py": DAG_A}))
    folder.look()
    assert "__init__.py stands at the root of the archive" in caplog.text
    assert folder.errors() == {}


def test_data_inside_a_package(folder: Folder) -> None:
    """S14: ``pkgutil`` and ``importlib.resources`` read what lies beside a package's code."""
    text = (
        "import pkgutil\nfrom importlib.resources import files\n"
        "assert pkgutil.get_data('pkg', 'a.sql') == b'select 1'\n"
        "assert files('pkg').joinpath('a.sql').read_text() == 'select 1'\n"
        "import space.inner\n"
    )
    members = {"dags.py": text + DAG_A, "pkg/__init__.py": "", "pkg/a.sql": "select 1"}
    folder.write("p.zip", zipped({**members, "space/inner.py": ""}))
    folder.look()
    assert folder.errors() == {}


def _truncated() -> bytes:
    return zipped({"dags.py": DAG_A})[:-30]


def _damaged() -> bytes:
    data = bytearray(zipped({"dags.py": DAG_A, "blob.py": os.urandom(400)}))
    at = data.index(b"blob.py") + 100
    data[at] ^= 0xFF
    return bytes(data)


def _encrypted() -> bytes:
    data = bytearray(zipped({"dags.py": DAG_A}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def _twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as made:
            made.writestr("dags.py", DAG_A)
            made.writestr("dags.py", "# another")
        return buffer.getvalue()


def _bomb() -> bytes:
    return zipped({"dags.py": DAG_A, "zeros.bin": b"\0" * (257 << 20)})


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "no_zip": (lambda: b"# roost dag, but no zip", "not a zip file, or damaged"),
    "empty_file": (lambda: b"", "not a zip file, or damaged"),
    "truncated": (_truncated, "not a zip file, or damaged"),
    "damaged": (_damaged, "not a zip file, or damaged"),
    "encrypted": (_encrypted, "'dags.py' is encrypted"),
    "twice": (_twice, "holds 'dags.py' twice"),
    "outside": (lambda: zipped({"../../dags.py": DAG_A}), "lies outside the archive"),
    "absolute": (lambda: zipped({"/etc/dags.py": DAG_A}), "lies outside the archive"),
    "library": (lambda: zipped({"dags.py": DAG_A, "x/lib.so.1": b""}), "dynamic library"),
    "mac_library": (lambda: zipped({"dags.py": DAG_A, "lib.dylib": b""}), "dynamic library"),
    "bomb": (_bomb, "unpacks to 257 MiB"),
    "large": (lambda: zipped({"dags.py": DAG_A, "x": os.urandom(11 << 20)}), "at most 10 MiB"),
    "not_utf8": (lambda: zipped({"dags.py": b"# roost dag \xff"}), "not UTF-8 text"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_package_is_one_clear_line(make: Callable[..., Folder], kind: str) -> None:
    """S15: whatever is wrong with it; the DAGs beside it are loaded."""
    build, message = BROKEN[kind]
    folder = make()
    folder.good("healthy.py")
    folder.write("p.zip", build())
    folder.look()
    assert set(folder.dags()) == {"healthy"}
    (error,) = folder.errors().values()
    assert message in error and "p.zip" in error and "\n" not in error
    folder.write("p.zip", zipped({"dags.py": DAG_A}))
    folder.look()
    assert (set(folder.dags()), folder.errors()) == ({"healthy", "zipped"}, {})


def test_a_file_too_large_is_one_clear_line(folder: Folder) -> None:
    """S12: 9 MiB are refused, 1 MiB is a DAG file like any other."""
    folder.write("large.py", DAG_A + "#" * (9 << 20))
    folder.write("fine.py", GOOD.format(dag_id="fine", note="") + "#" * (1 << 20))
    folder.look()
    assert set(folder.dags()) == {"fine"}
    assert "large.py: is larger than 8 MiB" in folder.errors()["large.py"]
