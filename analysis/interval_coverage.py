"""Do the intervals of scores hold the truth as often as they say, and would the usual bootstrap ones?

    python analysis/interval_coverage.py [--rows 300] [--repeats 200]

Labels are drawn from known probabilities of five classes, which the model reports as they are or sharpened
(logits times 1.3 and 2), so that every score's true value is known (from 200,000 rows; a calibrated model's
calibration errors are 0). For each interval of `bayes_clip.evaluation.intervals`, and for percentile and
bias-corrected (BC, BCa without its acceleration) intervals from the same resamples: the share of repeats in
which it holds the truth, and its mean width. Writes analysis/results/interval_coverage.csv and .md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm
from study_tools import markdown

from bayes_clip.evaluation.bootstrap import CALIBRATION
from bayes_clip.evaluation.intervals import LEVEL, resampled
from bayes_clip.evaluation.results import SCORE_COLUMNS, Run, score

CLASSES, SHARPNESS, TRUE_ROWS, RESAMPLES = 5, (1.0, 1.3, 2.0), 200_000, 400
TAILS = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
RESULTS = Path(__file__).parent / "results"


def drawn(rows: int, sharpness: float, seed: tuple[int, ...]) -> Run:
    """A made run; OOD novelty is 1.5 standard deviations above that of its rows."""
    generator = np.random.default_rng(seed)
    logits = 2.0 * generator.normal(size=(rows, CLASSES))
    true, said = (np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (logits, sharpness * logits))
    labels = (true.cumsum(1) < generator.random((rows, 1))).sum(1).clip(0, CLASSES - 1)
    novelty, outside = generator.normal(size=rows), generator.normal(size=rows) + 1.5
    return Run(score(said, labels, novelty, outside), said, labels, novelty, np.zeros(rows), outside)


def usual(value: float, found: np.ndarray) -> dict[str, tuple[float, float]]:
    """Percentile and bias-corrected ends of a score from its resamples."""
    below = (np.mean(found < value) + np.mean(found <= value)) / 2
    shift = norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
    moved = norm.cdf(2 * shift + norm.ppf(TAILS))
    return {"percentile": tuple(np.quantile(found, TAILS)), "BC": tuple(np.quantile(found, moved))}


def study(rows: int, repeats: int) -> pd.DataFrame:
    """One row for every sharpness, score and kind of interval: coverage and mean width."""
    table = []
    for sharpness in SHARPNESS:
        truth = {name: float(value) for name, value in drawn(TRUE_ROWS, sharpness, (1,)).row.items()}
        truth |= dict.fromkeys(CALIBRATION, 0.0) if sharpness == 1 else {}
        for repeat in range(repeats):
            run = drawn(rows, sharpness, (2, repeat))
            one = resampled([run], RESAMPLES, seed=repeat)[0]
            for metric in SCORE_COLUMNS:
                kinds = usual(float(run.row[metric]), one.scores[metric]) | {"ours": one.interval(metric)}
                for kind, (low, high) in kinds.items():
                    held = low <= truth[metric] <= high
                    table.append((rows, sharpness, metric, kind, truth[metric], held, high - low))
    columns = ["rows", "sharpness", "score", "interval", "truth", "coverage", "width"]
    keys = columns[:5]
    return pd.DataFrame(table, columns=columns).groupby(keys, sort=False, as_index=False).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=200)
    asked = parser.parse_args()
    found = study(asked.rows, asked.repeats)
    found.to_csv(RESULTS / "interval_coverage.csv", index=False)
    lines = []
    for (sharpness, metric), group in found.groupby(["sharpness", "score"], sort=False):
        said = {row.interval: f"{row.coverage:.2f} ({row.width:.3f})" for row in group.itertuples()}
        truth = f"{group['truth'].iloc[0]:.3f}"
        lines.append([f"x {sharpness:g}", metric, truth, said["ours"], said["percentile"], said["BC"]])
    text = (
        f"{asked.rows} query rows, {asked.repeats} repeats, {RESAMPLES} resamples; stated coverage "
        f"{LEVEL:g}. Coverage, and mean width in brackets.\n\n"
        + markdown(["logits", "score", "truth", "ours", "percentile", "BC"], lines)
        + "\n"
    )
    (RESULTS / "interval_coverage.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
