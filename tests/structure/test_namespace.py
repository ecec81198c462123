"""The roost namespace: four source roots, one name, nobody's __init__.py at its top."""

from __future__ import annotations

import ast

import pytest

from tests.support.sources import REPOSITORY, ROOTS, modules


@pytest.mark.parametrize("root", ROOTS)
def test_no_root_claims_the_namespace(root: str) -> None:
    """With a roost/__init__.py one root would hide the portions of the others."""
    assert not (REPOSITORY / root / "roost" / "__init__.py").exists()


def test_every_portion_is_a_typed_package() -> None:
    portions = [
        folder
        for root in ROOTS
        for folder in (REPOSITORY / root / "roost").iterdir()
        if folder.is_dir() and folder.name != "__pycache__"
    ]
    assert len(portions) >= 12
    for folder in portions:
        assert (folder / "__init__.py").is_file(), folder
        assert (folder / "py.typed").is_file(), folder


def test_no_portion_lies_in_two_roots() -> None:
    names = [module.name for module in modules()]
    assert sorted(names) == sorted(set(names))


def test_every_module_says_what_it_is() -> None:
    silent = [str(module.path) for module in modules() if not ast.get_docstring(module.tree)]
    assert silent == []
