"""Seconds of a whole filter over prompt words, through a text encoder of ViT-B-32's size.

    python analysis/text_side_filter.py [--words 4 16] [--covariances low_rank full]

`coop` under `ekf`: ten classes, four made-up labels each, context tokens of 512 numbers, the prior variance
given. Weights are random, which takes as long as any; so are the images, on which the time does not depend.
Writes analysis/results/text_side_filter.csv and .md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import pandas as pd
import torch
from study_tools import hardware, markdown, write_study
from text_side_jacobians import NAMES, random_backbone

import bayes_clip as bc
from bayes_clip.backbone.encoder import Backbone
from bayes_clip.inputs import task_context
from bayes_clip.model import find_model
from bayes_clip.progress import track

SHOTS, PRIOR_VARIANCE = 4, 0.01


def task_of(backbone: Backbone, words: int) -> bc.Task:
    """Noisy unit rows around the classes' texts, under a template of so many one-token words."""
    template = f"{' '.join(['a'] * words)} {{}}"
    text = backbone.text_features(NAMES, (template,))
    labels = torch.arange(len(NAMES)).repeat(SHOTS)
    noise = torch.randn(len(labels), text.shape[1], generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.normalize(text[labels] + noise / text.shape[1] ** 0.5, dim=-1)
    task = bc.make_task("made", rows, labels, rows, labels, text_features=text, class_names=NAMES)
    return replace(task, encoder=backbone, templates=(template,))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--covariances", nargs="+", default=["low_rank", "full"])
    asked = parser.parse_args()
    backbone, kind, rows = random_backbone(), find_model("coop"), []
    arms = [(words, covariance) for words in asked.words for covariance in asked.covariances]
    for words, covariance in track(arms, "Filters"):
        task = task_of(backbone, words)
        program = kind(task_context(kind, task), PRIOR_VARIANCE)
        weights = sum(site.mean.numel() for site in program.prior().values())
        chosen = bc.FitSettings(
            model="coop", covariance=covariance, prior_variance=PRIOR_VARIANCE, predictive="plug_in"
        )
        start = time.perf_counter()
        bc.fit(task, chosen)
        rows.append((words, weights, covariance, len(task.support_labels), time.perf_counter() - start))
    table = pd.DataFrame(rows, columns=["words", "weights", "covariance", "labels", "seconds"])
    said = [[*row[:-1], f"{row[-1]:.1f} s"] for row in rows]
    head = f"Seconds of one fit of `coop` under `ekf`, {len(NAMES)} classes; {hardware()}.\n\n"
    write_study("text_side_filter", {"": table}, head + markdown(list(table.columns), said), None)


if __name__ == "__main__":
    main()
