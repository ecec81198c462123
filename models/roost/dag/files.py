"""Template files of a DAG: beside its file, in its package, or in a search folder (S68)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roost.dag.definition import DAG

__all__ = ["read_packed", "read_template"]


def read_template(dag: DAG, name: str) -> str | None:
    """The text of the template file ``name``, None when it is nowhere.

    The folder of the DAG file comes first, then ``template_searchpath``.

    Raises:
        ValueError: it is not UTF-8.
    """
    packed = read_packed(dag, name)
    if packed is not None:
        return packed
    for folder in [dag.folder, *dag.template_searchpath]:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                return file.read()
    return None


def read_packed(dag: DAG, name: str) -> str | None:
    """The same, only in the package that the DAG file is in, as this process runs it (S14)."""
    package = sys.modules.get("roost.dag.package")
    archive = package.mounted(dag.folder) if package is not None else None
    inner = os.path.normpath(name)
    if archive is None or inner not in archive.names:
        return None
    text: str = archive.member(inner).decode()
    return text
