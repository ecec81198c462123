"""Ignore files: which files below the DAGs folder are no DAG files (S16-S18).

Each line of a ``.roostignore`` or ``.airflowignore`` is a regular expression, searched in the
path relative to the folder that holds the file. ``#`` begins a comment. What matches is left out,
a folder with all that is in it; a file holds for its folder and everything below.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = ["IGNORE_FILES", "IgnoreSyntax", "Rules", "read_rules"]

IGNORE_FILES = (".roostignore", ".airflowignore")
IgnoreSyntax = Literal["regexp", "glob"]
_COMMENT = re.compile(r"\s*#.*")


class _Pattern(NamedTuple):
    regex: re.Pattern[str]
    again: bool  # a glob with `!`: what matches is taken in again
    folders_only: bool


class Rules(NamedTuple):
    """What one ignore file says; ``errors`` has a line for each pattern that is none."""

    patterns: tuple[_Pattern, ...]
    errors: tuple[str, ...]

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """Whether ``path``, relative to the file's folder, is ignored; None: no line says."""
        found = None
        for pattern in self.patterns:
            if (is_folder or not pattern.folders_only) and pattern.regex.search(path):
                found = not pattern.again
        return found


def read_rules(path: str, syntax: IgnoreSyntax) -> Rules:
    """The rules of the ignore file at ``path``.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(1 << 20)
    return _parse(path, data, syntax)


@lru_cache(maxsize=256)
def _parse(path: str, data: bytes, syntax: IgnoreSyntax) -> Rules:
    patterns: list[_Pattern] = []
    errors: list[str] = []
    for number, raw in enumerate(data.splitlines(), 1):
        try:
            line = raw.decode()
            found = _glob(line) if syntax == "glob" else _regexp(line)
        except UnicodeDecodeError:
            errors.append(f"{path}:{number}: not UTF-8 text; the line ignores nothing")
        except (re.error, RecursionError, OverflowError) as error:
            errors.append(
                f"{path}:{number}: {line.strip()!r} is not a valid pattern ({error}); "
                "the line ignores nothing"
            )
        else:
            if found is not None:
                patterns.append(found)
    return Rules(tuple(patterns), tuple(errors))


def _regexp(line: str) -> _Pattern | None:
    text = _COMMENT.sub("", line).strip()
    if not text:
        return None
    regex = re.compile(text)
    if _may_explode(text):
        raise re.error("it repeats a group in which something repeats or may differ")
    return _Pattern(regex, again=False, folders_only=False)


# Of a valid pattern: what is escaped or in brackets, how a group begins, its end, repetitions.
_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^]\\])*\]|\(\?<?[:=!]|\(|\)|[*+?]|\{\d*,?\d*\}|\||.", re.DOTALL
)


def _may_explode(text: str) -> bool:
    """Whether matching may take time exponential in the path's length.

    Paths are matched in the scheduler, and a match cannot be interrupted. Refused is any group
    that repeats and in which something repeats, is optional or has alternatives, whether or not
    these overlap. What is polynomial is let pass.
    """
    open_groups = [False]  # whether what was seen in it varies; the first is the whole pattern
    closed = False  # whether the group that has just ended varies
    for found in _TOKEN.finditer(text):
        what = found[0]
        repeats = what in ("*", "+") or (what[0] == "{" and len(what) > 2)
        if repeats and closed:
            return True
        closed = False
        if what.startswith("("):
            open_groups.append(False)
        elif what == ")":
            closed = open_groups.pop()
            open_groups[-1] |= closed
        elif repeats or what in ("?", "|"):
            open_groups[-1] = True
    return False


def _glob(line: str) -> _Pattern | None:
    """One line of .gitignore's syntax."""
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    again = text.startswith("!")
    text = text[again:]
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    # With a slash inside, it counts from the file's folder; else it is a name anywhere below.
    anchored = "/" in text
    start = "^" if anchored else "(?:^|/)"
    return _Pattern(re.compile(f"{start}{_translate(text.lstrip('/'))}$"), again, folders_only)


_GLOB = re.compile(r"\*\*/|/\*\*$|\*|\?|\[(!?)([^]]+)\]|\\(.)|.", re.DOTALL)


def _translate(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        token = found[0]
        match token:
            case "**/":
                return "(?:.*/)?"
            case "/**":
                return "/.*"
            case "*":
                return "[^/]*"
            case "?":
                return "[^/]"
        if found[2]:
            inner = found[2].replace("\\", r"\\").replace("[", r"\[")
            return f"[{'^' if found[1] else ''}{inner}]"
        return re.escape(found[3] or token)

    return _GLOB.sub(one, text)
