"""The command line: reads options, calls the library, prints. No logic of its own.

The library is imported inside the commands, so that help comes without loading PyTorch.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer
from rich.console import Console

from bayes_clip import cli_options as options
from bayes_clip import cli_tables as tables
from bayes_clip.errors import UserError

app = typer.Typer(
    name="bayes-clip",
    help="From a handful of labelled images to a calibrated posterior and a report.",
    epilog="Begin with: [bold]bayes-clip compare digits digits_rotated --shots 4 --out runs/demo[/bold]",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def compare(
    tasks: options.TaskNames,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write.", show_default="runs/TASK"),
    ] = None,
    models: options.Models = "linear_probe",
    engines: options.Engines = options.DEFAULT_ENGINES,
    covariance: options.Covariance = "class_block",
    rule: options.Rule = None,
    prior_variance: options.PriorVariance = "auto",
    order: options.Order = "balanced",
    batch_size: options.BatchSize = None,
    passes: options.Passes = 1,
    shots: options.ShotsList = None,
    seeds: options.SeedsList = "0",
    ood: options.Outside = None,
    backbone: options.BackboneName = None,
    pretrained: options.Pretrained = None,
    templates: options.Templates = None,
    skip_broken: options.SkipBroken = False,
    allow_unknown_classes: options.AllowUnknownClasses = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    debug: options.Debug = False,
) -> None:
    """Fit every model, engine, shot count and seed asked for: one table and one report.

    Writes metrics.csv, predictions.npz, config.json, figures/ and report.html.

    \b
    Examples
      bayes-clip compare digits digits_rotated --shots 4 --out runs/demo
      bayes-clip compare features.npz --shots 1,4,16 --seeds 0,1,2,3,4
      bayes-clip compare digits --engines map,ekf --covariance full --prior-variance 0.01
      bayes-clip compare photos/ --backbone ViT-B-32 --pretrained laion2b_s34b_b79k
    """
    from bayes_clip.data.resolve import load_task
    from bayes_clip.evaluation.comparison import compare as run
    from bayes_clip.evaluation.results import summarise
    from bayes_clip.report.write import check_writable, write_comparison


@app.command()
def models() -> None:
    """List the model programs. Your own is as good, by its path: --models ./mine.py"""
    from bayes_clip.model import list_models

    _screen().print(tables.listing(list_models()))


@app.command()
def engines() -> None:
    """List the engines, the ways from labels to a posterior."""
    from bayes_clip.inference import ENGINES

    _screen().print(tables.listing(ENGINES))


@app.command()
def tasks() -> None:
    """List the built-in tasks. Folders of images and feature files are tasks too."""
    from bayes_clip.data.builtin import TASKS

    _screen().print(tables.listing(TASKS))


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 2 it cannot be done as asked, 1 a fault, 130 interrupted.

    Errors are one line on standard error; with ``--debug`` the traceback instead.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    warnings.showwarning = _show_warning
    try:
        status = app(args=arguments, prog_name="bayes-clip", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped")
        sys.exit(130)
    except Exception as error:
        if "--debug" in arguments:
            raise
        foreseen = isinstance(error, (UserError, typer.TyperException))
        hint = "" if foreseen else f"; this is a fault of the program ({type(error).__name__}); see --debug"
        _complain(_one_line(error) + hint)
        sys.exit(2 if foreseen else 1)
    sys.exit(status or 0)


def _screen() -> Console:
    return Console(highlight=False)


def _complain(text: str, label: str = "error") -> None:
    console = Console(stderr=True, highlight=False)
    console.print(f"{label}: {text}", markup=False, soft_wrap=True)


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
        _complain(" ".join(str(message).split()), "warning")


if __name__ == "__main__":
    main()
