"""Which prior and which predictive beat the point estimate, in distribution and at finding outsiders?

    python analysis/prior_and_predictive.py DTD.npz CALTECH.npz --out runs/prior_and_predictive

Candidates: prior_points.py (zero-shot; the mode at the fixed variance that is best on the query set, which
nobody could choose, and at that of balanced folds; its temperature, logit range and ensemble) and
prior_beliefs.py (the filter by rule, by predictive, under shaped priors and priors by class, with the scale
of the prior chosen by folds, by evidence or averaged over; Laplace; VI, of the first seeds alone). Only the
oracle looks at query labels.

Draws that are done are kept in --out, one table for each task, so that the same command goes on where it was
stopped. Every arm of a draw shares its support rows: differences are paired. Writes
analysis/results/prior_and_predictive_<tasks>.csv, .md and .png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from prior_beliefs import filters, others
from prior_points import points
from prior_said import Said
from prior_tables import conclusions, draw, tables
from study_tools import hardware, write_study

import bayes_clip as bc
from bayes_clip.evaluation.metrics import accuracy, auroc, brier, ece, nll
from bayes_clip.evaluation.table_file import agree, read_rows, remove_unfinished, write_rows
from bayes_clip.progress import track

SHOTS, SEEDS = (1, 2, 4, 8, 16), (0, 1, 2, 3, 4)
KEY = ("task", "shots", "seed", "arm")


def candidates(drawn: bc.Task, seed: int) -> Iterator[Said]:
    """Everything that is said of one draw."""
    yield from points(drawn, seed)
    yield from filters(drawn)
    yield from others(drawn, seed)


def row_of(said: Said, task: bc.Task, shots: int, seed: int) -> dict[str, str | int | float]:
    """Scores of a candidate: its probabilities, and of each doubt whom it finds: errors, and outsiders."""
    labels = task.query_labels.numpy()
    probabilities = said.probabilities.numpy()
    wrong = probabilities.argmax(1) != labels
    row: dict[str, str | int | float] = {
        **dict(zip(KEY, (task.name, shots, seed, said.arm), strict=True)),
        "accuracy": accuracy(probabilities, labels),
        "nll": nll(probabilities, labels),
        "ece": ece(probabilities, labels),
        "brier": brier(probabilities, labels),
        "prior_variance": "" if said.prior_variance is None else said.prior_variance,
        "scale": "" if said.scale is None else said.scale,
        "seconds": said.seconds,
    }
    for doubt in ("novelty", "confidence", "aleatoric", "epistemic"):
        near, far = said.doubts.get(doubt, (None, None))
        known = near is not None and 0 < wrong.sum() < len(wrong)
        row[f"errors_{doubt}"] = auroc(near[~wrong], near[wrong]) if known else ""
        row[f"outsiders_{doubt}"] = auroc(near, far) if far is not None and len(far) else ""
    return row


def study(task: bc.Task, shots: Sequence[int], seeds: Sequence[int], out: Path) -> pd.DataFrame:
    """A row for every draw and candidate, those of `out` included; draws by seed, then shots."""
    out.mkdir(parents=True, exist_ok=True)
    remove_unfinished(out)
    facts = {"support": len(task.support_labels), "query": len(task.query_labels)}
    agree(out / f"{task.name}.json", {"study": "prior_and_predictive"}, {task.name: facts})
    path = out / f"{task.name}.csv"
    rows = read_rows(path, KEY)
    done = {(int(row["shots"]), int(row["seed"])) for row in rows}
    left = [(seed, count) for seed, count in product(seeds, shots) if (count, seed) not in done]
    for seed, count in track(left, f"Draws of {task.name}"):
        drawn = bc.few_shot(task, count, seed)
        rows = [*rows, *(row_of(said, task, count, seed) for said in candidates(drawn, seed))]
        write_rows(path, rows, KEY)
    frame = pd.read_csv(path)
    return frame[frame["shots"].isin(shots) & frame["seed"].isin(seeds)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", help="feature tasks (.npz, .safetensors) or built-in tasks")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, default=Path("runs/prior_and_predictive"))
    asked = parser.parse_args()
    parts = [study(bc.load_task(name), asked.shots, asked.seeds, asked.out) for name in asked.tasks]
    table = pd.concat(parts, ignore_index=True)
    stem = "_".join(["prior_and_predictive", *dict.fromkeys(table["task"])])
    head = (
        f"# Which prior, which predictive\n\nSeeds {sorted(set(table['seed']))}, shots "
        f"{sorted(set(table['shots']))}; differences are paired by draw, ± 95 % interval (Student's t). "
        f"Processor seconds, choosing included, on {hardware()}. Other rules, priors and VI are at the "
        "centre of their hyper-prior, with plug-in probabilities (VI: scale by folds); Laplace at the prior "
        "variance that folds choose for MAP. Every prior has the same mean variance of a support row's "
        "logit.\n\n"
    )
    text = head + conclusions(table) + "\n\n" + tables(table)
    write_study(stem, {"": table}, text, draw(table))


if __name__ == "__main__":
    main()
