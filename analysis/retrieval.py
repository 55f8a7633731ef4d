"""Image-text retrieval with an adapter: recall before and after, and how sure a ranking may be of itself.

    python analysis/retrieval.py
    python analysis/retrieval.py --backbone ViT-B-32 --pretrained laion2b_s34b_b79k

Pictures of digits, letters, shapes and textures and their captions are rendered as pocket_clip's training
pictures are, by other seeds, and then changed in a way that it never saw: turned by 90 degrees, or red and
blue swapped. From k pairs, each picture against the k captions, `ImageMap` (image_map.py, a linear map of the
image features) is learned; it then ranks a gallery of other pictures and captions, in both directions.

    zero_shot          the encoder as it is
    map                the mode
    ekf, laplace mean  the posterior mean, without its doubt
    ekf, laplace       averaged over draws of the weights from the posterior

Prior variance and covariance scale are chosen from the k pairs alone: two halves, each ranked by the map that
the other half taught. Stated: the probability that the match is among the first k returned, by the average
softmax over the gallery; it should equal the recall. Gap: the mean difference of the two over 15 bins of the
stated probability (ECE of retrieval). Expected recall: that of single draws. Writes
analysis/results/retrieval.csv, retrieval_stated.csv, .md and .png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import product

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import torch
from captioned_pairs import SHIFTS, Pairs, encoded, rendered
from image_map import image_map
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from study_tools import SEEDS, hardware, markdown, said, write_study

import bayes_clip as bc
from bayes_clip.evaluation.metrics import binned_gap
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.evaluation.retrieval import Ranking, over_gallery, ranking, similarity_draws
from bayes_clip.fitting import Fit
from bayes_clip.model import AdapterModel
from bayes_clip.progress import track
from bayes_clip.report.style import house_style

ENGINES = ("map", "ekf", "laplace")
DIRECTIONS, GALLERY, DRAWS, BINS = 24, 300, 64, 15
TOPS = (1, 5)
BATCH = 4  # pairs that the filter learns jointly: as good as 16 here, and ten times as fast
WIDER = (0.3, 1.0, 3.0)  # prior variances tried, times the engine's default
SCALES = (0.0, 0.1, 0.3, 1.0)
SEEN = ("zero_shot", "map", "ekf mean", "ekf", "laplace mean", "laplace")


def fitted(pairs: Pairs, scale: float, kind: type[AdapterModel], engine: str, variance: float | None) -> Fit:
    """The map learned from pairs: each picture is of the class that is its caption."""
    own = torch.arange(len(pairs.captions))
    task = bc.make_task(
        "pairs",
        pairs.images,
        own,
        pairs.images,
        own,
        class_names=pairs.captions,
        text_features=pairs.texts,
        logit_scale=scale,
    )
    settings = bc.FitSettings(engine=engine, prior_variance=variance, batch_size=BATCH)
    return bc.fit(task, settings, program=kind)


def ranked(posterior: bc.Posterior, pairs: Pairs, covariance_scale: float) -> dict[str, Ranking]:
    """The pairs as a gallery, by direction."""
    over = over_gallery(posterior, pairs.texts, pairs.captions)
    draws = list(similarity_draws(over, pairs.images, DRAWS, covariance_scale=covariance_scale))
    return {
        "image to text": ranking(draws, pairs.relevant, TOPS),
        "text to image": ranking([each.T for each in draws], pairs.relevant.T, TOPS),
    }


def chosen(
    pairs: Pairs, scale: float, kind: type[AdapterModel], engine: str
) -> tuple[float, dict[str, float]]:
    """Prior variance, and covariance scale of the mean and of the average, by two halves of the pairs."""
    default = fitted(pairs, scale, kind, engine, None).posterior.source.prior_variance
    scales = SCALES[:1] if engine == "map" else SCALES
    halves = torch.arange(len(pairs.captions)).tensor_split(2)
    losses = pd.DataFrame(0.0, index=[default * factor for factor in WIDER], columns=list(scales))
    for variance, (taught, asked) in product(losses.index, (halves, halves[::-1])):
        posterior = fitted(pairs.part(taught), scale, kind, engine, variance).posterior
        for tried in scales:
            losses.loc[variance, tried] += ranked(posterior, pairs.part(asked), tried)["image to text"].nll()
    variance, averaged = losses.stack().idxmin()
    return float(variance), {engine: 0.0} if engine == "map" else {f"{engine} mean": 0.0, engine: averaged}


def measured(found: Ranking) -> dict[str, float]:
    """A ranking in numbers."""
    row = {"nll": found.nll(), "rank": float(np.median(found.rank))}
    row["rank_width"] = float((found.rank_upper - found.rank_lower).mean())
    for k in TOPS:
        hits, stated = found.hits(k), found.stated(k)
        row |= {f"recall_{k}": float(hits.mean()), f"stated_{k}": float(stated.mean())}
        row |= {f"gap_{k}": binned_gap(stated, hits, BINS), f"expected_{k}": found.expected_recall(k)}
    return row


def arms(
    pairs: Pairs, gallery: Pairs, scale: float
) -> Iterator[tuple[str, float, float, dict[str, Ranking]]]:
    """Name, prior variance, covariance scale and rankings of every arm."""
    kind = image_map(torch.cat([pairs.images, pairs.texts]), DIRECTIONS)
    nothing = fitted(pairs, scale, kind, "zero_shot", None).posterior
    yield "zero_shot", 0.0, 0.0, ranked(nothing, gallery, 0.0)
    for engine in ENGINES:
        variance, scales = chosen(pairs, scale, kind, engine)
        posterior = fitted(pairs, scale, kind, engine, variance).posterior
        for name, covariance_scale in scales.items():
            yield name, variance, covariance_scale, ranked(posterior, gallery, covariance_scale)


def study(
    backbone: bc.Backbone, pairs: Sequence[int], seeds: Sequence[int], gallery: int = GALLERY
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per shift, number of pairs, seed, direction and arm; and what was stated of every query at 5."""
    rows, stated = [], []
    for (shift, change), seed in track(list(product(SHIFTS.items(), seeds)), "Retrieval"):
        pictures, captions = rendered(max(pairs) + gallery, [seed, len(shift)])
        every = encoded(backbone, change(pictures), captions)
        asked = every.part(torch.arange(max(pairs), len(captions)))
        for count in pairs:
            known = every.part(torch.arange(count))
            for arm, variance, covariance_scale, found in arms(known, asked, backbone.logit_scale):
                for direction, one in found.items():
                    place = {"shift": shift, "pairs": count, "seed": seed, "direction": direction, "arm": arm}
                    chose = {"prior_variance": variance, "covariance_scale": covariance_scale}
                    rows.append({**place, **chose, **measured(one)})
                    said_of = pd.DataFrame({"stated": one.stated(TOPS[-1]), "hit": one.hits(TOPS[-1])})
                    stated.append(said_of.assign(**place))
    return pd.DataFrame(rows), pd.concat(stated, ignore_index=True)


def binned(stated: pd.DataFrame) -> pd.DataFrame:
    """What was stated and what came true, in bins, all seeds and directions together."""
    rows = []
    for place, part in stated.groupby(["shift", "pairs", "arm"], sort=False):
        found = reliability(part["stated"], part["hit"], BINS)
        for bin_, count in enumerate(found.counts):
            if count:
                numbers = (int(count), found.confidence[bin_], found.accuracy[bin_])
                rows.append((*place, *numbers))
    return pd.DataFrame(rows, columns=["shift", "pairs", "arm", "queries", "stated", "recall"])


def summary(table: pd.DataFrame) -> str:
    """Means with 95 % intervals over the seeds, as Markdown."""
    rows = []
    for (shift, direction, pairs, arm), part in table.groupby(
        ["shift", "direction", "pairs", "arm"], sort=False
    ):
        cells = [shift, direction, pairs, arm]
        cells += [said(part[name]) for name in ("recall_1", "recall_5", "stated_5", "gap_5")]
        cells += [said(part["expected_5"]), said(part["nll"], 2), f"{part['rank_width'].mean():.0f}"]
        rows.append(cells)
    header = ["shift", "direction", "pairs", "arm", "recall@1", "recall@5", "stated@5", "gap@5"]
    return markdown([*header, "expected recall@5", "NLL", "rank interval"], rows)


def conclusions(table: pd.DataFrame) -> str:
    """What the numbers say, as sentences: adapted against zero-shot, averaged against the mean."""
    scores = ["recall_5", "nll", "gap_5"]
    wide = table.groupby(["seed", "arm"])[scores].mean().unstack("arm")  # over shifts, pairs and directions
    lines = []
    for arm in [name for name in SEEN[1:] if name in set(table["arm"])]:
        recall = wide["recall_5"][arm] - wide["recall_5"]["zero_shot"]
        loss = wide["nll"][arm] - wide["nll"]["zero_shot"]
        lines.append(
            f"- `{arm}` against zero-shot: recall@5 {said(recall, signed=True)}, NLL {said(loss, 2, True)}, "
            f"gap@5 {said(wide['gap_5'][arm] - wide['gap_5']['zero_shot'], signed=True)}."
        )
    for engine in ENGINES[1:]:
        gap = wide["gap_5"][engine] - wide["gap_5"][f"{engine} mean"]
        recall = wide["recall_5"][engine] - wide["recall_5"][f"{engine} mean"]
        loss = wide["nll"][engine] - wide["nll"][f"{engine} mean"]
        lines.append(
            f"- Averaging over the weights (`{engine}` against `{engine} mean`): gap@5 "
            f"{said(gap, signed=True)}, NLL {said(loss, 2, True)}, recall@5 {said(recall, signed=True)}."
        )
    return "\n".join(lines)


def draw(table: pd.DataFrame, bins: pd.DataFrame) -> Figure:
    """Recall@5 by number of pairs, and what was stated against what came true, a row for each shift."""
    shifts = list(dict.fromkeys(table["shift"]))
    colours = dict(zip(SEEN, plt.get_cmap("tab10").colors, strict=False))
    with house_style():
        figure, axes = plt.subplots(len(shifts), 2, figsize=(8.4, 3.4 * len(shifts)), squeeze=False)
        for (recalls, curves), shift in zip(axes, shifts, strict=True):
            ours = table[table["shift"] == shift]
            for arm, part in ours.groupby("arm", sort=False):
                means = part.groupby("pairs")["recall_5"].agg(["mean", "sem"])
                recalls.errorbar(
                    means.index, means["mean"], means["sem"], label=arm, color=colours[arm], marker="o"
                )
            most = bins[(bins["shift"] == shift) & (bins["pairs"] == bins["pairs"].max())]
            for arm, part in most.groupby("arm", sort=False):
                curves.plot(part["stated"], part["recall"], label=arm, color=colours[arm], marker=".")
            curves.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
            recalls.set(title=shift, xlabel="pairs learned", ylabel="recall@5")
            curves.set(
                title=f"{shift}, {most['pairs'].max()} pairs", xlabel="stated recall@5", ylabel="recall@5"
            )
        axes[0][0].legend()
        figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="pocket_clip")
    parser.add_argument("--pretrained")
    parser.add_argument("--pairs", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = parser.parse_args()
    backbone = bc.load_backbone(asked.backbone, asked.pretrained)
    table, stated = study(backbone, asked.pairs, asked.seeds)
    bins = binned(stated)
    head = (
        f"{backbone.name}, galleries of {GALLERY} rendered pictures and captions, `ImageMap` in {DIRECTIONS} "
        f"directions; mean ± 95 % interval over seeds {list(asked.seeds)}. Stated@5: probability that the "
        "match is among the first five; gap@5: how far stated and true recall are apart, over 15 bins. Rank "
        f"interval: mean width of the central 90 % of the match's rank over {DRAWS} draws of the weights. "
        f"Run on {hardware()}.\n\n"
    )
    text = head + conclusions(table) + "\n\n" + summary(table)
    stem = "retrieval" if asked.backbone == "pocket_clip" else f"retrieval_{backbone.name.replace('/', '_')}"
    write_study(stem, {"": table, "_stated": bins}, text, draw(table, bins))


if __name__ == "__main__":
    main()
