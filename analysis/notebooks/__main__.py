"""Pair and execute the notebooks; the executed copies are written to runs/notebooks/ (``make notebooks``).

python -m analysis.notebooks              all of them, two at a time
python -m analysis.notebooks 02 05        those whose names begin so
python -m analysis.notebooks --pair       only bring each .ipynb up to its .py
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from nbclient.exceptions import CellExecutionError

from analysis.notebooks.paired import ROOT, execute, other_half, pair, scripts

WORKERS = 2  # two cores are what continuous integration has


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="notebooks whose names begin so; all of them without")
    parser.add_argument("--pair", action="store_true", help="write the .ipynb files and execute nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "notebooks")
    options = parser.parse_args()
    chosen = [path for path in scripts() if path.name.startswith(tuple(options.names) or "")]
    for script in chosen:
        if pair(script):
            print(f"wrote {other_half(script).name}")
    if options.pair:
        return 0
    start = time.perf_counter()
    with ProcessPoolExecutor(WORKERS) as pool:
        found = pool.map(_executed, chosen, [options.out] * len(chosen))
        sound = [_told(script, error) for script, error in zip(chosen, found, strict=True)]
    print(f"{len(chosen)} notebooks in {time.perf_counter() - start:.0f} s; see {options.out}")
    return 0 if all(sound) else 1


def _executed(script: Path, out: Path) -> tuple[float, str]:
    """Seconds, and what went wrong, if anything did."""
    try:
        return execute(script, out / other_half(script).name), ""
    except CellExecutionError as error:
        return 0.0, str(error)


def _told(script: Path, outcome: tuple[float, str]) -> bool:
    seconds, error = outcome
    print(f"{script.stem}: {error or f'{seconds:.0f} s'}", flush=True)
    return not error


if __name__ == "__main__":
    sys.exit(main())
