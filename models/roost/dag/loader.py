"""From the text of a DAG file to its DAGs: the one way in, for every process (S3, S5).

Parser, task template, trigger runner and ``dags test`` all load a file here. The text that is
given is what runs, under the file's real name, so that a worker executes exactly the version
that was dispatched while tracebacks and ``inspect`` still show its lines.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any, Protocol, TypeGuard

from roost.dag import scope
from roost.dag.cluster_policy import load_policy
from roost.dag.definition import DAG
from roost.dag.ignore import IGNORE_FILES, read_rules
from roost.dag.starting import import_start_triggers
from roost.dag.trigger import DAG_MODULE, BaseTrigger, source_of, trigger_classes
from roost.exceptions import DagError
from roost.support.user_settings import ignore_syntax, local_settings

__all__ = [
    "MAX_HELPERS",
    "MAX_SOURCE",
    "Kept",
    "LoadedFile",
    "is_packed",
    "known_triggers",
    "load_dag_file",
    "module_name",
    "policy_file",
    "read_source",
]

#: Bytes that a DAG file may have: its text must fit into one parse result as JSON.
MAX_SOURCE = 8 << 20
#: Bytes that the helper modules of a DAG file may have together for their texts to be kept.
MAX_HELPERS = 2 << 20
_ARCHIVE = "!roost-zip "  # roost.dag.package.MARK


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A DAG file that has been executed.

    Attributes:
        dags: the DAGs at its top level, by id.
        triggers: every trigger class that the file defines or imports, by ``module:qualname``.
        module: the module that it became.
        helpers: modules below the DAGs folder that it imported: paths relative to that folder.
        code_hash: identity of all this code: sha256 over the file and its helpers.
        texts: of the helpers, by module name: the path and what the file held when it was hashed;
            empty when they are too large to be kept.
    """

    dags: dict[str, DAG]
    triggers: dict[str, type[BaseTrigger]]
    module: ModuleType
    helpers: list[str]
    code_hash: str
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)


class Kept(Protocol):
    """The helper modules of one version, not as they are on the disk.

    Attributes:
        code_hash: of the version.
        builtins: ``__builtins__`` for its code, whose import statements find these modules.
    """

    code_hash: str
    builtins: dict[str, Any]

    def present(self) -> AbstractContextManager[None]:
        """Let them stand in ``sys.modules`` meanwhile."""


def read_source(path: str) -> str:
    """The text of a DAG file, line ends as they are; of one in a zip, the whole archive (S13).

    Raises:
        DagError: it is not UTF-8, holds NUL or is too large; or the archive or ignore file is
            broken, which is why it was listed.
        OSError: it cannot be read.
    """
    if os.path.basename(path) in IGNORE_FILES:
        raise DagError("\n".join(read_rules(path, ignore_syntax()).errors))
    if path.endswith(".zip"):
        from roost.dag.archive import what_is_wrong  # late: many processes meet no zip

        raise what_is_wrong(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SOURCE + 1)
    except NotADirectoryError:
        from roost.dag import package  # late, as above

        if package.place_of(path) is None:
            raise
        return package.pack(path)
    if len(data) > MAX_SOURCE:
        raise DagError(f"{path}: is larger than 8 MiB, the most that a DAG file may be")
    return _text(path, data)


def is_packed(source: str) -> bool:
    """Whether ``source`` is that of a DAG file in an archive."""
    return source.startswith(_ARCHIVE)


def _text(path: str, data: bytes) -> str:
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DagError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        raise DagError(f"{path}: holds a NUL character; it is not a Python file")
    return text


def module_name(path: str, dags_folder: str) -> str:
    """The name under which the file at ``path`` is a module, the same in every process.

    It is made of the path below the DAGs folder: two files of one name in two folders differ,
    and a helper module or an installed package never bears it.
    """
    relative = _relative(os.path.abspath(path), os.path.abspath(dags_folder))
    digest = hashlib.sha256(relative.encode()).hexdigest()[:8]
    stem = re.sub(r"\W", "_", relative.removesuffix(".py"))
    return f"{DAG_MODULE}{stem}_{digest}"


def load_dag_file(
    path: str,
    source: str,
    dags_folder: str,
    *,
    with_policy: bool = True,
    bundle: Kept | None = None,
) -> LoadedFile:
    """Execute ``source`` as the DAG file at ``path``.

    The DAGs folder is on ``sys.path`` afterwards, at its end. Helper modules below it are
    imported anew by each load, so that a process that lives long sees their edits.

    Args:
        path: where the file is, absolute; it need not hold ``source`` any more.
        source: the text to execute.
        dags_folder: the configured folder, absolute.
        with_policy: apply the cluster policy (S108). What needs only the triggers does without.
        bundle: its helpers as they were when it was parsed (D23); None: as they are on the disk.

    Raises:
        DagError: two DAGs of the file have one id, or the cluster policy refuses one.
        BaseException: whatever the file raises.
    """
    path, folder = os.path.abspath(path), os.path.abspath(dags_folder)
    if folder not in sys.path:
        sys.path.append(folder)
    _forget_helpers(folder)
    policy = load_policy() if with_policy else None
    with nullcontext() if bundle is None else bundle.present():
        names = {} if bundle is None else bundle.builtins
        module = _execute(module_name(path, folder), path, *_code(path, source), names)
        dags = _dags_of(module, path)
        import_start_triggers(dags.values())
        triggers = known_triggers()  # while the modules are there that they are found in
    if policy is not None:
        policy.apply(dags)
    if bundle is not None:
        return LoadedFile(dags, triggers, module, [], bundle.code_hash)
    helpers = _helpers(folder)
    data = _read(helpers | (policy_file(folder) if with_policy else {}))
    return LoadedFile(
        dags=dags,
        triggers=triggers,
        module=module,
        helpers=sorted(data),
        code_hash=_hash(source, data),
        texts=_texts(folder, data),
    )


def _dags_of(module: ModuleType, path: str) -> dict[str, DAG]:
    scan = [*vars(module).values(), *scope.declared_dags(vars(module))]
    found = [dag for dag in scan if isinstance(dag, DAG)]
    # A sub-DAG may be local to a function (S5): it is found through its operator.
    found += [subdag for dag in found for subdag in dag.subdags()]
    dags: dict[str, DAG] = {}
    for dag in found:
        if dags.setdefault(dag.dag_id, dag) is not dag:
            raise DagError(f"two DAGs of this file are called {dag.dag_id!r}; rename one")
        dag.fileloc = path
    return dags


def _code(path: str, source: str) -> tuple[str, CodeType]:
    """The text to show of a file, and its code."""
    if not is_packed(source):
        package = sys.modules.get("roost.dag.package")
        if package is not None:
            package.unmount()
        return source, compile(source, path, "exec", dont_inherit=True)
    from roost.dag.package import mount  # late: many processes meet no zip

    member = mount(path, source)
    if member.code is not None:
        return "", member.code
    text = _text(path, member.data)
    return text, compile(text, path, "exec", dont_inherit=True)


def _execute(name: str, path: str, text: str, code: CodeType, names: dict[str, Any]) -> ModuleType:
    spec = importlib.util.spec_from_loader(name, loader=None, origin=path)
    if spec is None:  # only for built-in names, which ours never is
        raise DagError(f"{path}: cannot be loaded as {name}")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = path
    if names:
        vars(module)["__builtins__"] = names
    # Without a time stamp the entry is never checked against the file, which may have changed.
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    sys.modules[name] = module
    try:
        exec(code, vars(module))  # noqa: S102 - executing DAG files is what this is for
    except BaseException:
        del sys.modules[name]
        scope.declared_dags(vars(module))
        raise
    return module


def _below(folder: str) -> dict[str, str | None]:
    """Names of imported modules below ``folder``, with their file (None for a bare folder).

    Not what is installed there: an environment may stand inside the DAGs folder.
    """
    prefixes = tuple({os.path.join(root, "") for root in (folder, os.path.realpath(folder))})
    found: dict[str, str | None] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        place = file or next(iter(getattr(module, "__path__", ())), None)
        if isinstance(place, str) and place.startswith(prefixes) and not _installed(name, place):
            found[name] = file
    return found


def _installed(name: str, place: str) -> bool:
    ours = name == "roost" or name.startswith(("roost.", DAG_MODULE)) or name == "__main__"
    return ours or "site-packages" in place or "dist-packages" in place


def _forget_helpers(folder: str) -> None:
    for name in _below(folder):
        del sys.modules[name]
    importlib.invalidate_caches()


def _helpers(folder: str) -> dict[str, str]:
    """Helper files by their path relative to ``folder``."""
    real = os.path.realpath(folder)
    return {
        _relative(os.path.realpath(file), real): file
        for file in _below(folder).values()
        if _is_helper(file)
    }


def _is_helper(file: str | None) -> TypeGuard[str]:
    """Whether it is a file: what comes from an archive is hashed with it, and is none."""
    return file is not None and file.endswith(".py") and os.path.isfile(file)


def _texts(folder: str, data: dict[str, bytes | None]) -> dict[str, tuple[str, str]]:
    """The helpers' texts by module name, if they are not too large together."""
    real = os.path.realpath(folder)
    found: dict[str, tuple[str, str]] = {}
    size = 0
    for name, file in sorted(_below(folder).items()):
        if not _is_helper(file):
            continue
        path = _relative(os.path.realpath(file), real)
        held = data.get(path)
        if held is None:
            continue
        size += len(held)
        if size > MAX_HELPERS:
            return {}
        try:
            found[name] = (_relative(file, folder), importlib.util.decode_source(held))
        except (SyntaxError, UnicodeDecodeError):
            continue  # edited into something that is no text since it was imported
    return found


def known_triggers() -> dict[str, type[BaseTrigger]]:
    """The trigger classes that another process can find by name after loading the same file."""
    found: dict[str, type[BaseTrigger]] = {}
    for kind in trigger_classes():
        target: object = sys.modules.get(kind.__module__)
        for part in kind.__qualname__.split("."):
            target = getattr(target, part, None)
        # Not a class of an earlier version of a file, or one local to a function.
        if target is kind:
            found[source_of(kind)] = kind
    return found


def policy_file(folder: str) -> dict[str, str]:
    """The cluster policy as a helper of every file, also while it is not there: it may come."""
    path = local_settings()
    return {_relative(path, os.path.abspath(folder)): path} if path else {}


def _read(helpers: dict[str, str]) -> dict[str, bytes | None]:
    """What the helpers hold; None for one that is not there."""
    found: dict[str, bytes | None] = {}
    for relative, file in helpers.items():
        try:
            with open(file, "rb") as stream:
                found[relative] = stream.read()
        except FileNotFoundError:
            found[relative] = None
    return found


def _hash(source: str, helpers: dict[str, bytes | None]) -> str:
    digest = hashlib.sha256(source.encode())
    for relative in sorted(helpers):
        data = helpers[relative]
        if data is None:
            continue
        # Lengths keep the parts apart: no two sets of files hash as the same bytes.
        digest.update(f"\0{relative}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def _relative(path: str, folder: str) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/")
