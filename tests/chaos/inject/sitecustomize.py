"""Loaded by every Python of the kill test: another host, and guards that a mutant has lost."""

from __future__ import annotations

import os

if host := os.environ.get("ROOST_CHAOS_HOST"):
    from roost.support import processes

    _own = processes.host_id

    def host_id() -> str:
        """As if each named host had booted by itself."""
        return f"{host}:{_own()}"

    processes.host_id = host_id

if mutant := os.environ.get("ROOST_CHAOS_MUTANT"):
    from tests.chaos import mutants

    mutants.apply(mutant)
