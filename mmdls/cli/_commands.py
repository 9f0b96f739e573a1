"""What all commands share: errors without tracebacks, exit codes, warnings as plain lines."""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from mmdls._secrets import without_secrets

__all__ = ["FINDINGS", "Commands", "Failed", "import_modules"]

# 0 is fine, 2 is click's for wrong usage.
INPUT, FINDINGS, INTERNAL, INTERRUPTED = 1, 3, 4, 130
# What the library raises where an argument, a file or a missing package is the reason.
_OF_THE_INPUT = (ValueError, TypeError, LookupError, OSError, ImportError, NotImplementedError, RuntimeError)


class Failed(click.ClickException):
    """The end of a command that cannot go on.

    Parameters
    ----------
    message : str
    exit_code : int, default=1
    """

    def __init__(self, message: str, exit_code: int = INPUT):
        super().__init__(without_secrets(message))
        self.exit_code = exit_code  # type: ignore[misc]


class Commands(click.Group):
    """A group of commands whose errors are one line; ``--debug``, at any place, shows where they were raised."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, and the option ``--debug`` to it."""
        cmd.params.append(_debug())
        super().add_command(cmd, name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they are needed."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; every exit code but 0 has a message on standard error."""
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt as error:
            raise Failed("stopped. What was finished stays; run the same again to go on.", INTERRUPTED) from error
        except Exception as error:
            if ctx.meta.get("debug"):
                click.echo(without_secrets("".join(traceback.format_exception(error))), err=True)
            if isinstance(error, _OF_THE_INPUT):
                # The text of a KeyError is the repr of its message.
                raise Failed(
                    str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
                ) from error
            raise Failed(
                f"{type(error).__name__}: {error}\nThis is a fault of mmdls, not of your input; run the command again "
                "with --debug, and report what it shows.",
                INTERNAL,
            ) from error


def _debug() -> click.Option:
    def remember(ctx: click.Context, _: Any, value: bool) -> None:
        if value:
            ctx.find_root().meta["debug"] = True

    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=remember, help="Show where an error was raised."
    )


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show each warning once, as a line without the place in the code."""
    shown = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = without_secrets(str(message))
        if text not in shown:
            shown.add(text)
            click.echo(f"Warning: {text}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def import_modules(ctx: click.Context, _: Any, names: tuple[str, ...]) -> None:
    """Import the modules of ``--import``, which register parts.

    Raises
    ------
    Failed
        If one cannot be imported, or raises.
    """
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise Failed(f"--import {name}: {error}. It must be installed, or stand in PYTHONPATH.") from error
        except Exception as error:  # whatever the module's own code raises
            if ctx.meta.get("debug"):
                click.echo(without_secrets("".join(traceback.format_exception(error))), err=True)
            what = f"{type(error).__name__}: {error}"
            raise Failed(f"--import {name}: the module raises {what}; `mmdls --debug ...` shows where.") from error
