"""Figure of robustness: four measures against the severity of each corruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.shift import CLEAN
from bayes_clip.report.style import ENGINE_COLOURS, INK, MUTED, OUTSIDE, house_style, legend_above, panels

MEASURES = (
    ("accuracy", "accuracy"),
    ("nll", "NLL, nats"),
    ("ece", "ECE"),
    ("novelty_auroc", "AUROC of novelty, corrupted against clean"),
)
CHANCE = 0.5  # an AUROC of pictures that cannot be told apart
SHADES = (
    *(ENGINE_COLOURS[name] for name in ("ekf", "map", "laplace", "vi", "nuts", "sgd")),
    *(OUTSIDE, MUTED),
)
MARKERS = "osD^vPX*"


def robustness_curves(rows: Sequence[Mapping[str, Cell]]) -> Figure:
    """A panel per measure, a line per corruption from clean pictures (severity 0) on, their mean in ink."""
    kinds = [kind for kind in dict.fromkeys(str(row["corruption"]) for row in rows) if kind != CLEAN]
    with house_style():
        figure, stacks = panels(len(MEASURES), (4.6, 3.0))
        for (axes,), (measure, label) in zip(stacks, MEASURES, strict=True):
            curves = {kind: curve(rows, kind, measure) for kind in kinds}
            for place, (kind, (severities, values)) in enumerate(curves.items()):
                shade, marker = SHADES[place % len(SHADES)], MARKERS[place % len(MARKERS)]
                axes.plot(
                    severities, values, label=kind, color=shade, marker=marker, markersize=4, linewidth=1.3
                )
            if len(kinds) > 1:
                severities = next(iter(curves.values()))[0]
                mean = np.mean([values for _, values in curves.values()], axis=0)
                axes.plot(severities, mean, color=INK, linewidth=2.6, label="mean")
            axes.set(xlabel="severity", ylabel=label, xticks=severities)
        legend_above(figure, stacks[0][0])
    return figure


def curve(rows: Sequence[Mapping[str, Cell]], kind: str, measure: str) -> tuple[list[int], np.ndarray]:
    """Severities, from 0 (clean) on, and the measure at each; an AUROC begins at chance."""
    own = [row for row in rows if row["corruption"] in (CLEAN, kind)]
    values = [CHANCE if row[measure] == "" else float(row[measure]) for row in own]
    return [int(row["severity"]) for row in own], np.array(values)
