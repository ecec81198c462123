"""How commands are found, and how they end: lazily loaded groups, one-line errors, exit codes.

Exit codes: 0 done, 1 the thing that was asked about failed, 2 the command could not do its part
(wrong usage, a name that does not exist, a database that is away). Code 1 never stands for 2, so
a script can trust ``roost dags trigger --wait``.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from roost.exceptions import RoostException

__all__ = ["Command", "Lazy", "LazyGroup", "Root"]

_VERBOSE = "roost.verbose"


class Lazy(NamedTuple):
    """Where a command is and what ``--help`` says of it without loading it."""

    target: str  # module:attribute
    help: str


def _be_verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().meta[_VERBOSE] = True


def _verbose_option() -> click.Option:
    return click.Option(
        ["--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_be_verbose,
        help="Show the traceback of an error.",
    )


class Command(click.Command):
    """A command with ``--verbose``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_verbose_option())


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command runs.

    Args:
        commands: name to its place; each module imports what it alone needs.
    """

    command_class = Command

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Load one command."""
        place = self.lazy.get(name)
        if place is None:
            return None
        module, _, attribute = place.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place.target} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but with the nearest name for one that does not exist."""
        if args[0] not in self.lazy and args[0][:1].isalnum():
            raise click.exceptions.NoSuchCommand(args[0], possibilities=list(self.lazy), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of ``--help``, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in self.lazy.items()])


class Root(LazyGroup):
    """The outermost group: turns every way of ending into an exit code and at most one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_verbose_option())

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """The root context; kept, for an error must know whether to be verbose."""
        self._context = super().make_context(*args, **kwargs)
        return self._context

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit; see the module's text for the codes."""
        try:
            code = super().main(args, prog_name or "roost", complete_var, False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = _fail(_usage(error), error.exit_code)
        except click.Abort:
            code = 130
        except RoostException as error:
            self._trace()
            code = _fail(str(error), 2)
        except Exception as error:
            code = self._unexpected(error)
        sys.exit(code if isinstance(code, int) else 0)

    def _verbose(self) -> bool:
        context = getattr(self, "_context", None)
        return context is not None and bool(context.meta.get(_VERBOSE))

    def _trace(self) -> None:
        if self._verbose():
            traceback.print_exc()

    def _unexpected(self, error: Exception) -> int:
        """An error that nobody raised on purpose; a database that went away is one of them."""
        self._trace()
        what = " ".join(str(getattr(error, "orig", None) or error).split())
        if type(error).__module__.startswith("sqlalchemy"):
            return _fail(f"the metadata database failed: {what}; check database.url", 2)
        hint = "" if self._verbose() else "; --verbose shows where"
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}{hint}", 2)
        return _fail(f"unexpected {type(error).__name__}: {what}{hint}", 2)


def _usage(error: click.ClickException) -> str:
    """Click's message as one line that says where help is."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    joint = " See" if message.endswith("?") else "; see"
    return f"{message}{joint} `{context.command_path} --help`"


def _fail(message: str, code: int) -> int:
    try:
        click.echo(f"roost: {message}", err=True)
    except OSError:
        os._exit(code)
    return code
