"""Time bayes_clip beside its peers and beside what this machine could do.

    python -m analysis.benchmarks
    python -m analysis.benchmarks --only map encode --out runs/benchmarks

Writes results.csv, results.json (hardware, versions, tolerances), growth.csv and two figures. On a machine
with a CUDA device its rows go to files of their own, results_<gpu>.csv and so on. Ends with 1, and writes no
results, where an answer of ours disagrees with the peer's by more than its tolerance.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console

from analysis.benchmarks import figures, growth
from analysis.benchmarks.cases import CASES
from analysis.benchmarks.contest import Row, Size, run
from analysis.benchmarks.hardware import device_name
from analysis.benchmarks.peers import MissingPeer
from analysis.benchmarks.tables import shown, write_about, write_lines, write_markdown, write_rows
from bayes_clip.errors import UserError, nearest
from bayes_clip.precision import full_precision
from bayes_clip.progress import track

HERE = Path(__file__).parent
PART = Path("runs") / "benchmarks"  # where a part of the cases goes unless told: results.csv holds all
GROWTH = "growth"
Job = tuple[torch.device, str, Size]


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Run what is asked for; the exit code."""
    console = console or Console()
    asked = _asked(arguments)
    try:
        names = _names(asked.only)
        folder = asked.out or (PART if asked.only or asked.toy else HERE)
        folder.mkdir(parents=True, exist_ok=True)
        with full_precision():
            return _benchmark(names, folder, asked.toy, console)
    except UserError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 2


def _benchmark(names: Sequence[str], folder: Path, toy: bool, console: Console) -> int:
    start = time.perf_counter()
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    wrong = False
    for device in devices:
        rows = list(_rows(_jobs(names, device, toy), console))
        console.print(shown(rows))
        if any(not row.agrees for row in rows):
            console.print("answers disagree: nothing is written", style="bold red")
            wrong = True
        elif rows:
            stem = folder / f"results{_suffix(device)}"
            write_rows(rows, stem.with_suffix(".csv"))
            write_markdown(rows, stem.with_suffix(".md"))
            write_about(rows, device, time.perf_counter() - start, stem.with_suffix(".json"))
            figures.write(figures.speed(rows), folder / f"benchmarks{_suffix(device)}")
        if GROWTH in names:
            _grow(device, folder, toy)
    console.print(f"{time.perf_counter() - start:.0f} s; in {folder}", highlight=False)
    return int(wrong)


def _jobs(names: Sequence[str], device: torch.device, toy: bool) -> list[Job]:
    """Device, case and size of everything to be run there."""
    cases = [(name, CASES[name]) for name in names if name in CASES]
    return [
        (device, name, size)
        for name, case in cases
        if device.type == "cpu" or case.on_gpu
        for size in ((case.toy,) if toy else case.sizes)
    ]


def _rows(jobs: Sequence[Job], console: Console) -> Iterator[Row]:
    """The rows of all jobs; a peer that is not installed is skipped, aloud."""
    for device, name, size in track(jobs, "Benchmarks", console=console):
        console.print(f"{name}@{size} on {device_name(device)} ...", highlight=False)
        try:
            for contest in CASES[name].contests(size, device):
                yield from run(contest, device, device_name(device))
        except MissingPeer as missing:
            console.print(f"skipped {name}@{size}: {missing}", style="yellow", markup=False, highlight=False)


def _grow(device: torch.device, folder: Path, toy: bool) -> None:
    at = (growth.TOY, growth.TOY_SWEEPS) if toy else (growth.MIDDLE, growth.SWEEPS)
    found = list(growth.curves(device, *at))
    write_lines(growth.COLUMNS, growth.lines(found), folder / f"growth{_suffix(device)}.csv")
    figures.write(figures.growth(found), folder / f"growth{_suffix(device)}")


def _suffix(device: torch.device) -> str:
    """Nothing for the CPU, else the GPU's name as a part of a file's."""
    if device.type == "cpu":
        return ""
    return "_" + re.sub(r"[^a-z0-9]+", "_", device_name(device).lower()).strip("_")


def _names(only: Sequence[str] | None) -> list[str]:
    """The cases asked for, all by default.

    Raises:
        UserError: an unknown case.
    """
    known = [*CASES, GROWTH]
    for name in only or ():
        if name not in known:
            raise UserError(f"--only {name}: no such case.{nearest(name, known)} Known: {', '.join(known)}")
    return list(only or known)


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="CASE", help=f"of {', '.join([*CASES, GROWTH])}")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: here, or {PART} for a part")
    parser.add_argument("--toy", action="store_true", help="toy sizes: does everything run and agree?")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
