"""Does every engine's posterior deserve its name? The table that `compare` reads its `self_check` from.

    python analysis/check_engines.py                         ekf and laplace, every covariance and rule
    python analysis/check_engines.py --engines vi --simulations 100
    python analysis/check_engines.py --engines nuts --simulations 20
    python analysis/check_engines.py --only-missing          what has no row yet, such as a new rule

Data are drawn from the linear probe's own prior (3 classes, 3 features, 30 rows), so no data set is needed.
Writes analysis/results/check_engines.csv, .md and .png, and bayes_clip/evaluation/engine_checks.json; rows
that are there already are replaced by new ones of the same combination and kept otherwise, so that the slow
engines can be run on their own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from bayes_clip.errors import UserError
from bayes_clip.evaluation.checking import REGIMES, SIMULATIONS, Arm, arms_of, check_arm
from bayes_clip.evaluation.engine_checks import RECORD, write_record
from bayes_clip.evaluation.simulated import small_task
from bayes_clip.report.style import INK, house_style

RESULTS = Path(__file__).parent / "results"
KEY = ["model", "engine", "covariance", "rule", "prior_logit_variance"]


def measured(arm: Arm, value: float, simulations: int, seed: int) -> dict | None:
    """The row of check.csv of one combination; None where the engine refuses it."""
    try:
        return check_arm(arm, value, simulations, seed, small_task()).row
    except UserError as error:
        print(f"{arm.label}: {error}")
        return None


def merged(old: pd.DataFrame, rows: list[dict]) -> pd.DataFrame:
    """Old rows with the new ones in the place of those of the same combination."""
    table = pd.concat([old, pd.DataFrame(rows)]).fillna("")
    return table.drop_duplicates(KEY, keep="last").sort_values(KEY).reset_index(drop=True)


def markdown(table: pd.DataFrame) -> str:
    """Verdicts by prior variance of a logit, and by how much the posterior should have been wider."""
    values = sorted(set(table["prior_logit_variance"]))
    heads = [f"s²v = {value:g}" for value in values]
    lines = ["| engine | covariance | rule | " + " | ".join(heads) + " |", "|---" * (3 + len(values)) + "|"]
    for (engine, covariance, rule), group in table.groupby(["engine", "covariance", "rule"], sort=False):
        by_value = group.set_index("prior_logit_variance")
        cells = [_cell(by_value.loc[value]) if value in by_value.index else "" for value in values]
        lines.append(f"| {engine} | {covariance} | {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(table: pd.DataFrame) -> Figure:
    """A line per arm and a cell per prior variance: its verdict, over the coverage of its 80 % intervals.

    Blue where more truths lie inside than 80 %, orange where fewer.
    """
    arms = table[["engine", "covariance", "rule"]].drop_duplicates().values.tolist()
    values = sorted(set(table["prior_logit_variance"]))
    named = {tuple(row[:3]): index for index, row in enumerate(arms)}
    shares, words = np.full((len(arms), len(values)), np.nan), np.full((len(arms), len(values)), "", object)
    for _, row in table.iterrows():
        place = (
            named[row["engine"], row["covariance"], row["rule"]],
            values.index(row["prior_logit_variance"]),
        )
        shares[place] = 100 * float(row["coverage_80"])
        words[place] = f"{row['verdict']}\n{shares[place]:.0f} %"
    with house_style():
        figure = Figure(figsize=(3.4 + 1.5 * len(values), 0.9 + 0.46 * len(arms)), layout="constrained")
        axes = figure.subplots()
        seaborn.heatmap(
            shares, vmin=0, vmax=160, center=80, cmap="PuOr", annot=words, fmt="", linewidths=2, cbar=False,
            annot_kws={"fontsize": 7.5, "color": INK}, ax=axes,
        )  # fmt: skip
        axes.set_xticklabels([f"s²v = {value:g}" for value in values])
        axes.set_yticklabels([" · ".join(part for part in arm if part) for arm in arms], rotation=0)
        axes.set_title("Own check, and truths inside 80 % intervals")
        axes.tick_params(length=0)
        axes.grid(False)
    return figure


def _cell(row: pd.Series) -> str:
    k = "" if row["pareto_k"] == "" else f", k̂ {float(row['pareto_k']):.2f}"
    filtered = "" if row["labels"] == "" else f"; stream: {row['labels']}"
    return f"**{row['calibration']}** (×{float(row['width_needed']):.2f}{k}){filtered}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", nargs="+", default=["ekf", "laplace"])
    parser.add_argument("--covariance", nargs="+", default=["all"])
    parser.add_argument("--rule", nargs="+", default=["all"])
    parser.add_argument("--prior-logit-variance", type=float, nargs="+", default=list(REGIMES))
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-missing", action="store_true")
    asked = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / "check_engines"
    arms, _ = arms_of(asked.engines, "linear_probe", asked.covariance, asked.rule)
    for arm in arms:
        for value in asked.prior_logit_variance:
            old = _read(stem.with_suffix(".csv"))
            if asked.only_missing and _has(old, arm, value):
                continue
            row = measured(arm, value, asked.simulations, asked.seed)
            if row is None:
                break
            print(f"{arm.label} at {value:g}: {row['verdict']}", flush=True)
            table = merged(_read(stem.with_suffix(".csv")), [row])
            table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
            stem.with_suffix(".md").write_text(markdown(table), encoding="utf-8")
            picture(table).savefig(stem.with_suffix(".png"), dpi=110)
            write_record([row], RECORD)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False) if path.exists() else pd.DataFrame()


def _has(table: pd.DataFrame, arm: Arm, value: float) -> bool:
    if table.empty:
        return False
    own = table[(table["engine"] == arm.engine) & (table["covariance"] == arm.covariance)]
    return bool(((own["rule"] == arm.rule) & (own["prior_logit_variance"] == value)).any())


if __name__ == "__main__":
    main()
