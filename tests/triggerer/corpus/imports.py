"""A DAG file whose import takes long, as ``KIND`` says; its first line gives that, and ``GO``.

Each does all of it in one line, and in the module: there it is whenever somebody looks.
"""

# ruff: noqa: F821
# mypy: ignore-errors

import ctypes, re


class Late(Named):
    async def run(self):
        yield TriggerEvent(KIND)


if KIND == "sleeps":
    while not (os.path.exists(GO) or time.sleep(0.05)):  # sleeps
        pass
elif KIND == "spins":
    while not (sum(range(100_000)) and os.path.exists(GO)):  # spins
        pass
elif KIND == "holds":
    for _ in range(3):  # the signal that asks where it is ends the first one early
        ctypes.PyDLL(None).usleep(500_000)  # holds
elif KIND == "matches":
    re.match("(x+)+y", "x" * 60)  # matches
