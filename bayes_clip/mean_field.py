"""Average softmax over independent Gaussian logits in closed form, by pairs of classes or through a grid.

    p_k ∝ 1 / Σ_j exp((μ_j − μ_k) g(σ_k² + σ_j²)),    g(w) = 1/√(1 + π w/8)

With all pairs this is C² exponentials a row. But g depends on the sum of two variances alone, smoothly: for
variances on an evenly spaced grid of m nodes the sums take 2 m − 1 values w_s, so that C (2 m − 1)
exponentials exp(μ_j g(w_s)) are enough. Between the nodes a pair is interpolated in both variances, as two
small matrix products per row. The few classes of largest mean, which stand far off where a prediction is
peaked, are paired with all classes one by one.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from bayes_clip.memory import WORKING_BYTES, rows_within

ACCURACY = 1e-9  # relative error of the exponential of a pair, hence at most twice that of a probability
# Nodes of the grid, and how far it goes beyond the variances on either side, in half ranges: polynomials
# through even nodes are only well behaved away from the ends.
MARGINS = {6: 0.1, 8: 0.15, 10: 0.2, 12: 0.25, 14: 0.25, 16: 0.3, 20: 0.4, 24: 0.4, 28: 0.45}
PAIRED = 16  # classes of largest mean that do not go through the grid
FEWEST_CLASSES = 128  # below which all pairs are no slower
STEPS_PER_OCTAVE = 3  # in which spread and bend of a row are rounded up
CACHED = 2**20  # numbers that are worked on at once, so that they stay in a CPU's caches
TOO_MANY = 300  # steps: a spread or bend of 2**100
LARGEST_EXPONENT = 300.0  # far from where float64 overflows


def probabilities(mean: Tensor, variance: Tensor, budget: int = WORKING_BYTES) -> Tensor:
    """Probabilities (N, C) from means and variances (N, C), within `budget` bytes; same dtype.

    A row goes through the grid of fewest nodes that is accurate enough for its own spread of means and range
    of variances, or through all pairs where none is or where that is faster; the rows beside it do not
    matter. Computed in float64; against all pairs no probability is off by more than 2e-9, nor by more than
    2e-6 of itself.
    """
    result = torch.empty_like(mean)
    orders = _orders(mean, variance)
    for order in orders.unique().tolist():
        rows = (orders == order).nonzero()[:, 0]
        for picked in rows.split(_rows_at_once(mean, order, budget)):
            mu, var = mean[picked].double(), variance[picked].double()
            inverse = 1 / (_sums_by_grid(mu, var, order) if order else _sums_by_pairs(mu, var))
            result[picked] = (inverse / inverse.sum(-1, keepdim=True)).to(mean.dtype)
    return result


def _rows_at_once(mean: Tensor, order: int, budget: int) -> int:
    classes = mean.shape[1]
    numbers = (9 * order + 2 * PAIRED if order else 2 * classes) * classes
    rows = rows_within(budget, 8 * numbers)
    return max(1, min(rows, CACHED // numbers)) if mean.device.type == "cpu" else rows


def _sums_by_pairs(mean: Tensor, variance: Tensor) -> Tensor:
    """Σ_j exp((μ_j − μ_k) g(σ_k² + σ_j²)), (n, C), at least 1; infinite where p_k is zero."""
    gaps = mean[:, None, :] - mean[:, :, None]
    spread = variance[:, :, None] + variance[:, None, :]
    return gaps.mul_(_shrink_(spread)).exp_().sum(-1)


def _sums_by_grid(mean: Tensor, variance: Tensor, order: int) -> Tensor:
    """The same through a grid of `order` nodes around each row's range of variances."""
    values, top = mean.topk(PAIRED)
    spread = variance.gather(1, top)[:, :, None] + variance[:, None, :]
    pairs = (values[:, :, None] - mean[:, None, :]).mul_(_shrink_(spread)).exp_()  # (n, PAIRED, C)
    others = torch.ones_like(mean).scatter_(1, top, 0.0)
    total = pairs.sum(1).add_(_sums_of_others(mean - values[:, -1:], variance, others, order))
    return total.scatter_(1, top, pairs.reciprocal_().sum(-1))


def _sums_of_others(mean: Tensor, variance: Tensor, others: Tensor, order: int) -> Tensor:
    """Sums over the classes where `others` (n, C) is 1, for those classes; their means are at most 0."""
    middle, half = _range(variance)
    basis = _lagrange(((variance - middle) / half).clamp(-1, 1), order)  # (n, m, C)
    sums = 2 * middle + half * _node_sums(order).to(mean)  # (n, 2 m − 1)
    powers = (mean.clamp_max(0)[:, None, :] * _shrink_(sums)[:, :, None]).exp_()  # (n, 2 m − 1, C)
    by_node = (basis * others[:, None, :]) @ powers.mT  # (n, m, 2 m − 1)
    # nodes i and l meet in the sum s = i + l
    other = torch.arange(2 * order - 1, device=mean.device) - torch.arange(order, device=mean.device)[:, None]
    inside = (other >= 0) & (other < order)
    picked = by_node.gather(1, other.clamp(0, order - 1).expand(len(mean), -1, -1))
    return (picked * inside).mT.matmul(basis).div_(powers).sum(1)


def _shrink_(variance: Tensor) -> Tensor:
    """g(w), in place."""
    return variance.mul_(math.pi / 8).add_(1).rsqrt_()


def _range(variance: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and half range of each row's variances, (n, 1) each; the half range is not zero."""
    low, high = variance.amin(-1, keepdim=True), variance.amax(-1, keepdim=True)
    middle = (low + high) / 2
    return middle, torch.maximum((high - low) / 2, 1e-6 * (1 + middle))


def _nodes(order: int) -> Tensor:
    return torch.linspace(-1 - MARGINS[order], 1 + MARGINS[order], order, dtype=torch.float64)


def _node_sums(order: int) -> Tensor:
    end = 2 + 2 * MARGINS[order]
    return torch.linspace(-end, end, 2 * order - 1, dtype=torch.float64)


def _lagrange(places: Tensor, order: int) -> Tensor:
    """Lagrange polynomials of the nodes at places (n, C) in [−1, 1]: (n, m, C); barycentric formula."""
    signs = [(-1.0) ** index * math.comb(order - 1, index) for index in range(order)]
    gaps = places[:, None, :] - _nodes(order).to(places)[:, None]
    gaps.masked_fill_(gaps == 0, torch.finfo(places.dtype).eps ** 4)  # at a node that node alone counts
    basis = torch.tensor(signs).to(places)[:, None] / gaps
    return basis.div_(basis.sum(1, keepdim=True))


def _orders(mean: Tensor, variance: Tensor) -> Tensor:
    """Nodes (N,) for each row; 0: all pairs."""
    if mean.shape[1] < FEWEST_CLASSES:
        return torch.zeros(len(mean), dtype=torch.long, device=mean.device)
    middle, half = _range(variance)
    base = 1 + math.pi / 4 * middle
    others = mean.topk(PAIRED).values[:, -1:] - mean.amin(-1, keepdim=True)
    spread = others * base.rsqrt()
    bend = math.pi / 8 * half / base
    steps = torch.cat([spread, bend], dim=1).clamp_min(1e-9).log2().mul_(STEPS_PER_OCTAVE).ceil_()
    kinds, which = steps.to(torch.float64).unique(dim=0, return_inverse=True)
    # rows that are not finite go through all pairs, which leave them so
    found = [_order(int(one), int(other)) for one, other in kinds.nan_to_num(TOO_MANY, TOO_MANY).tolist()]
    return torch.tensor(found, device=mean.device)[which]


@lru_cache(maxsize=4096)
def _order(spread_steps: int, bend_steps: int) -> int:
    """Fewest nodes for rows of at most this spread and bend, which are rounded up to steps; 0: none will do.

    With middle c, half range H and A = 1 + π c/4, the exponent of a pair is d A^-½ (1 + b (x + x'))^-½ for
    places x, x' in [−1, 1], bend b = π H/(8 A) and |d| A^-½ at most the spread. The error of the
    interpolation grows with both, and is found by trying. Classes in the lower half of the spread have a
    probability of at most `faint`: of theirs the error may be larger by as much, up to 1e-6.
    """
    spread, bend = (2 ** (min(steps, TOO_MANY) / STEPS_PER_OCTAVE) for steps in (spread_steps, bend_steps))
    if spread / math.sqrt(max(1e-3, 1 - 2 * bend)) > LARGEST_EXPONENT:
        return 0
    faint = max(1e-3, math.exp(-spread / 2 / math.sqrt(1 + 2 * bend)))
    for order, margin in MARGINS.items():
        if 2 * (1 + margin) * bend < 0.95:
            near, far = (_error(order, gap, bend) for gap in (spread / 2, spread))
            if near < ACCURACY and far * faint < ACCURACY:
                return order
    return 0


def _error(order: int, gap: float, bend: float) -> float:
    """Largest relative error of a pair over 33² places of its variances, for means `gap` apart."""
    places = torch.linspace(-1, 1, 33, dtype=torch.float64)
    nodes, basis = _nodes(order), _lagrange(places[None], order)[0]

    def pairs(grid: Tensor, sign: int) -> Tensor:
        return (sign * gap * (1 + bend * (grid[:, None] + grid)).rsqrt()).exp()

    return max(
        float((basis.mT @ pairs(nodes, sign) @ basis / pairs(places, sign) - 1).abs().max())
        for sign in (1, -1)
    )
