"""All scores of a run on many resamples of its query rows at once (Efron 1979), and their noise.

A resample is how often it holds each row, so that a score of B resamples is a few products of matrices with
counts (M, B), instead of B passes over the rows. Each is the score that `metrics`, `calibration`,
`smooth_ece` and `selective` would give for the repeated rows, bins and ties included: nothing is linearised.
OOD rows are resampled on their own.

Calibration errors are norms of sums of residuals, which are not zero for a calibrated model either. Their
noise is the norm of the same sums with random signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from bayes_clip.evaluation import smooth_ece
from bayes_clip.evaluation.metrics import NUM_BINS, Array, bin_index, confidence_and_correct, nll_of_rows
from bayes_clip.evaluation.results import Run

NUMBERS = 2**18  # counts that are worked on at once: they stay in a CPU's caches
MORE_BINS = (10, 20)
PLUG_IN = (
    "root_mean_square"  # of the gaps of equal-mass bins: `debiased_ece` before what chance adds is taken off
)
CALIBRATION = (
    *("ece", "ece_10", "ece_20", "adaptive_ece", "classwise_ece", "top_label_ece", "debiased_ece"),
    *("max_calibration_error", "smooth_ece"),
)


def resamples(rows: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """How often each of `count` resamples of as many rows holds each row, (rows, count) uint8."""
    generator = np.random.default_rng(seed)
    counts = np.empty((rows, count), dtype=np.uint8)  # 256 times the same row: never (1e-507)
    for index in range(count):
        counts[:, index] = np.bincount(generator.integers(0, rows, rows), minlength=rows)
    return counts


def random_signs(rows: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """Independent signs, -1 or 1 with equal chances, (rows, count) int8."""
    return np.random.default_rng(seed).integers(0, 2, (rows, count), dtype=np.int8) * 2 - 1


def blocks(draws: np.ndarray) -> Iterator[tuple[slice, Array]]:
    """Counts or signs (M, B) as float64, by as many columns at once as a CPU's caches hold."""
    rows, count = draws.shape
    at_once = max(1, NUMBERS // max(rows, 1))
    for start in range(0, count, at_once):
        part = slice(start, min(start + at_once, count))
        yield part, draws[:, part].astype(np.float64)


@dataclass(frozen=True)
class Scored:
    """A run made ready to be scored on resamples."""

    run: Run

    def on(self, counts: Array, ood_counts: Array | None) -> dict[str, Array]:
        """SCORE_COLUMNS and PLUG_IN (B,) on resamples of the query rows (M, B) and the OOD rows (K, B)."""
        sums = self._of_rows @ counts / len(counts)
        found = dict(zip(("accuracy", "nll", "brier"), sums, strict=True))
        found |= self._by_fixed_bins(counts, self._sizes @ counts)
        found |= self._by_rank(counts)
        found["smooth_ece"] = smooth_ece.smooth_errors(self._waves @ counts / len(counts))
        if ood_counts is not None:
            found["ood_auroc"], found["ood_fpr95"] = self._outside(counts, ood_counts)
        return found

    def noise(self, signs: Array) -> dict[str, Array]:
        """The norms (S,) that residuals with random signs (M, S) have: of each of CALIBRATION and PLUG_IN."""
        rows = len(signs)
        found = self._by_fixed_bins(signs, self._sizes.sum(axis=1)[:, None])
        held = np.bincount(self._mass_bins)[:, None]
        by_mass = _summing(self._mass_bins, self._residual) @ signs
        found["adaptive_ece"] = np.abs(by_mass).sum(0) / rows
        found[PLUG_IN] = np.sqrt((by_mass**2 / held).sum(0) / rows)
        waves = self._waves @ signs / rows
        found["smooth_ece"] = smooth_ece.smoothed(waves, np.full(signs.shape[1], self._smooth))
        return found

    def _by_fixed_bins(self, weights: Array, sizes: Array) -> dict[str, Array]:
        """The errors whose bins are places, for rows with weights (M, B) and bins of weight (bins, B)."""
        rows, classes = self.run.probabilities.shape
        by_bin = {bins: summed @ weights for bins, summed in self._by_width.items()}
        rare, common = self._by_class
        gaps = np.abs(rare @ weights).sum(0) + np.abs(common @ weights).sum(0)
        return {
            "ece": np.abs(by_bin[NUM_BINS]).sum(0) / rows,
            **{f"ece_{bins}": np.abs(by_bin[bins]).sum(0) / rows for bins in MORE_BINS},
            "max_calibration_error": np.abs(by_bin[NUM_BINS] / np.maximum(sizes, 1)).max(0),
            "top_label_ece": np.abs(self._by_label @ weights).sum(0) / rows,
            "classwise_ece": gaps / (rows * classes),
        }

    @cached_property
    def _sure_and_right(self) -> tuple[Array, Array]:
        return confidence_and_correct(self.run.probabilities, self.run.labels)

    @property
    def _correct(self) -> Array:
        return self._sure_and_right[1]

    @property
    def _residual(self) -> Array:
        return self._sure_and_right[0] - self._sure_and_right[1]

    @cached_property
    def _of_rows(self) -> Array:
        return of_rows(self.run)

    @cached_property
    def _by_width(self) -> dict[int, csr_array]:
        sure = self._sure_and_right[0]
        return {
            bins: _summing(bin_index(sure, bins), self._residual, bins) for bins in (NUM_BINS, *MORE_BINS)
        }

    @cached_property
    def _sizes(self) -> csr_array:
        index = bin_index(self._sure_and_right[0])
        return _summing(index, np.ones(len(index)), NUM_BINS)

    @cached_property
    def _by_label(self) -> csr_array:
        cells = self.run.probabilities.argmax(1) * NUM_BINS + bin_index(self._sure_and_right[0])
        return _summing(cells, self._residual)

    @cached_property
    def _by_class(self) -> tuple[csr_array, Array]:
        """What sums the residuals of every class by bin: all bins but the first, which nearly all share."""
        probabilities, labels = self.run.probabilities, self.run.labels
        classes = probabilities.shape[1]
        residual = probabilities - (labels[:, None] == np.arange(classes))
        index = bin_index(probabilities)
        row, column = np.nonzero(index)
        cells = column * NUM_BINS + index[row, column]
        rare = _summing(cells, residual[row, column], rows=(row, len(labels)))
        return rare, np.ascontiguousarray(np.where(index == 0, residual, 0.0).T)

    @cached_property
    def _smooth(self) -> float:
        return smooth_ece.smooth_ece(self.run.probabilities, self.run.labels)

    @cached_property
    def _waves(self) -> Array:
        """Residuals in cosines (modes, M), for bandwidths down to half that of the rows themselves."""
        modes = smooth_ece.modes_for(self._smooth / 2)
        return smooth_ece.cosines(self._sure_and_right[0], modes) * self._residual

    @cached_property
    def _mass_bins(self) -> np.ndarray:
        """The equal-mass bin of each row (M,)."""
        order, rows = self._ties[0], len(self._correct)
        bins = np.empty(rows, dtype=np.int64)
        for index, part in enumerate(np.array_split(order, min(NUM_BINS, rows))):
            bins[part] = index
        return bins

    @cached_property
    def _ties(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows by rising confidence, and where each group of equal ones starts."""
        order = np.argsort(self._sure_and_right[0], kind="stable")
        ranked = self._sure_and_right[0][order]
        return order, np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))

    def _by_rank(self, counts: Array) -> dict[str, Array]:
        """What goes by the order of the confidences: errors over equal-mass bins, and risk and coverage."""
        order, starts = self._ties
        ranked = counts[order]
        parts = [ranked, *(ranked * value[order][:, None] for value in (self._residual, self._correct))]
        if len(starts) < len(order):
            parts = [np.add.reduceat(part, starts, axis=0) for part in parts]
        size, gap, right = parts
        upto, gaps, rights = (np.cumsum(part, axis=0) for part in parts)
        found = _equal_mass(size, upto, (gap, right), (gaps, rights))
        return {**found, "aurc": _under_risk(size, upto, right, rights)}

    def _outside(self, counts: Array, ood_counts: Array) -> tuple[Array, Array]:
        """AUROC, and the share of OOD rows let in where 95 % of the query rows are."""
        outside = self.run.ood_novelty
        assert outside is not None
        inner, outer = np.argsort(self.run.novelty), np.argsort(outside)
        low, high = self.run.novelty[inner], outside[outer]
        within = np.cumsum(counts[inner], axis=0)
        below = np.vstack([np.zeros_like(within[:1]), within])
        under = below[np.searchsorted(low, high, "left")] + below[np.searchsorted(low, high, "right")]
        beyond = ood_counts[outer]
        area = (under * beyond).sum(0) / (2 * len(low) * len(high))
        accepted = -(-len(low) * 95 // 100)
        limit = low[_first_at_least(within, np.array([accepted]))[0]]
        passed = np.vstack([np.zeros_like(beyond[:1]), np.cumsum(beyond, axis=0)])
        at_most = np.searchsorted(high, limit, "right")
        return area, passed[at_most, np.arange(len(limit))] / len(high)


def of_rows(run: Run) -> Array:
    """Whether each row is right, its log-loss and its Brier score, (3, M): scores that are means of rows."""
    truth = run.labels[:, None] == np.arange(run.probabilities.shape[1])
    correct = confidence_and_correct(run.probabilities, run.labels)[1]
    squares = ((run.probabilities - truth) ** 2).sum(1)
    return np.stack([correct, nll_of_rows(run.probabilities, run.labels), squares])


def _summing(
    cells: np.ndarray, values: Array, size: int = 0, rows: tuple[np.ndarray, int] | None = None
) -> csr_array:
    """What sums `values` by cell: (cells, M), empty cells left out unless a `size` is given.

    One value a row unless `rows` says which row each belongs to, and how many there are.
    """
    if not size:
        cells = np.unique(cells, return_inverse=True)[1]
        size = int(cells.max(initial=-1)) + 1
    index, count = (np.arange(len(values)), len(values)) if rows is None else rows
    return csr_array((values, (cells, index)), shape=(size, count))


def _equal_mass(
    size: Array, upto: Array, sums: tuple[Array, Array], cumulative: tuple[Array, Array]
) -> dict[str, Array]:
    """Adaptive and debiased calibration error and PLUG_IN (B,) of groups (G, B) by rising confidence.

    `size` of each group, and up to it; the same of the `sums` of residuals and of right rows. Bins end at the
    same positions in all resamples; a group that an end cuts gives each side its share, since its rows share
    their mean.
    """
    rows = int(upto[-1, 0])
    bins = min(NUM_BINS, rows)
    ends = np.cumsum([rows // bins + (index < rows % bins) for index in range(bins)])
    group = _first_at_least(upto, ends)  # (bins, B)
    share = (np.take_along_axis(upto, group, 0) - ends[:, None]) / np.take_along_axis(size, group, 0)
    gap, right = (
        np.diff(
            np.take_along_axis(whole, group, 0) - share * np.take_along_axis(own, group, 0),
            axis=0,
            prepend=0.0,
        )
        for own, whole in zip(sums, cumulative, strict=True)
    )
    held = np.diff(ends, prepend=0)[:, None]
    accuracy = right / held
    noise = accuracy * (1 - accuracy) / np.maximum(held - 1, 1)
    square = np.where(held > 1, held * ((gap / held) ** 2 - noise), 0.0).sum(0) / rows
    return {
        "adaptive_ece": np.abs(gap).sum(0) / rows,
        "debiased_ece": np.sqrt(np.maximum(square, 0.0)),
        PLUG_IN: np.sqrt((gap**2 / held).sum(0) / rows),
    }


def _under_risk(size: Array, upto: Array, right: Array, rights: Array) -> Array:
    """Mean over k of the error rate among the k surest rows (B,), of groups in rising order (G, B).

    A group of n rows with mean error e after N rows with E errors adds Σ_j (E + j e)/(N + j), j = 1..n,
    = n e + (E − N e)(H(N + n) − H(N)) with the harmonic numbers H.
    """
    rows = int(upto[-1, 0])
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, rows + 1)))
    before = rows - upto  # the surer ones
    at = harmonic[before.astype(np.int64)]
    steps = np.diff(at, axis=0, prepend=harmonic[-1]) * -1
    wrong = size - right
    mean = wrong / np.maximum(size, 1)
    wrong_before = before - (rights[-1] - rights)
    return np.asarray((wrong + (wrong_before - before * mean) * steps).sum(0) / rows)


def _first_at_least(rising: Array, limits: np.ndarray) -> np.ndarray:
    """For each limit and column, the first row of `rising` (G, B) that reaches it; (limits, B)."""
    groups, columns = rising.shape
    step = rising[-1].max() + 1
    line = (rising + step * np.arange(columns)).T.ravel()
    wanted = limits[:, None] + step * np.arange(columns)
    return np.asarray(np.searchsorted(line, wanted) - groups * np.arange(columns))
