"""The command line: reads options, calls the library, prints. No logic of its own.

The library is imported inside the commands, so that help comes without loading PyTorch.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, NoReturn, TextIO

import typer

import bayes_clip
from bayes_clip.cli.checking import check
from bayes_clip.cli.encoders import backbones
from bayes_clip.cli.fitting import compare, fit
from bayes_clip.cli.leaving import export
from bayes_clip.cli.protocol import protocol
from bayes_clip.cli.shifting import shift
from bayes_clip.cli.storing import features, store
from bayes_clip.cli.suggesting import suggest
from bayes_clip.cli.tables import complain, line, listing, show
from bayes_clip.cli.transporting import transport
from bayes_clip.cli.updating import update
from bayes_clip.cli.using import evaluate, predict
from bayes_clip.data.store_place import use_store
from bayes_clip.errors import UserError

INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    name="bayes-clip",
    help="From a handful of labelled images to a calibrated posterior and a report.",
    epilog="Begin with: [bold]bayes-clip compare digits digits_rotated --shots 4 --out runs/demo[/bold]",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def top(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        line(f"bayes_clip {bayes_clip.__version__}")
        raise typer.Exit


COMMANDS: tuple[Callable[..., None], ...] = (
    *(compare, protocol, fit, update, transport, predict, suggest, evaluate, shift, check, export),
    *(features, store, backbones),
)
for command in COMMANDS:
    app.command()(command)


@app.command()
def models() -> None:
    """List the model programs. Your own is as good, by its path: --models ./mine.py"""
    from bayes_clip.model import list_models

    show(listing(list_models()))


@app.command()
def engines() -> None:
    """List the engines, the ways from labels to a posterior, with their covariances and update rules."""
    from bayes_clip.inference import COVARIANCES, ENGINE_COVARIANCES, ENGINES, UPDATE_RULES

    show(listing(ENGINES))
    line("")
    line(
        "--covariance ("
        + "; ".join(f"{name}: {', '.join(of)}" for name, of in ENGINE_COVARIANCES.items() if of)
        + ")"
    )
    show(listing(COVARIANCES))
    line("")
    line("--rule, of ekf")
    show(listing(UPDATE_RULES))


@app.command()
def tasks() -> None:
    """List the built-in tasks. Folders of images and feature files are tasks too."""
    from bayes_clip.data.builtin import TASKS

    show(listing(TASKS))


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 2 it cannot be done as asked, 1 a fault, 130 interrupted.

    Errors are one line on standard error; with ``--debug`` the traceback instead.
    """
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    warnings.showwarning = _show_warning
    try:
        status = app(args=arguments, prog_name="bayes-clip", standalone_mode=False)
    except Exception as error:
        if "--debug" in arguments:
            raise
        foreseen = isinstance(error, (UserError, typer.TyperException))
        if foreseen and "--distributed" in arguments and os.environ.get("RANK", "0") != "0":
            sys.exit(2)  # the first process says the same
        hint = "" if foreseen else f"; this is a fault of the program ({type(error).__name__}); see --debug"
        complain(_one_line(error) + hint)
        sys.exit(2 if foreseen else 1)
    finally:
        use_store("default")  # what --store chose ends with the command
    if status == INTERRUPTED:
        complain("stopped")
    sys.exit(status or 0)


def _one_line(error: Exception) -> str:
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    return " ".join(text.split())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line; what libraries say to programmers is left out."""
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        complain(" ".join(str(message).split()), "warning")
