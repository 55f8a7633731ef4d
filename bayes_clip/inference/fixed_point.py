"""Iterations that stop as soon as they are done where looking is free, and are frozen where it is not.

On a CPU a loop may read what it computes. On CUDA every such look waits for the device, so a loop runs to its
last step there, and a result that will do stays as it is: both ways it is the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MEMORY = 5  # earlier steps that a step of the fixed point is mixed from
CUDA_STEPS = 20  # all of them are run there; a batch of CLIP features takes 3 to 15
RIDGE = 1e-10  # of the mixing equations, relative


def told(flag: Tensor) -> bool:
    """Whether a flag () is seen to be true; on CUDA nobody looks."""
    return not flag.is_cuda and bool(flag)


def rounds(most: int, like: Tensor) -> range:
    """The steps of a loop over tensors `like`: up to `most`, on CUDA always the same few."""
    return range(min(most, CUDA_STEPS) if like.is_cuda else most)


def fixed_point(
    change: Callable[[Tensor], tuple[Tensor, Tensor]],
    admissible: Callable[[Tensor], Tensor],
    start: Tensor,
    tolerance: float,
    most: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """A point x (n,) that `change`, x -> (g(x) − x, gap), hardly moves; its gap (); the evaluations ().

    Stops at the first point with a gap below `tolerance`; after `most` points, the one with the least gap.
    The next point is mixed from the last ones by Anderson's method (Walker & Ni 2011, equation 2.2, with all
    of the mixed change), then made `admissible`. A gap that is no number ends the search.
    """
    point = best = start
    least = start.new_full((), torch.inf)
    steps = torch.zeros((), dtype=torch.int64, device=start.device)
    points: list[Tensor] = []
    changes: list[Tensor] = []
    for _ in rounds(most, start):
        moved, gap = change(point)
        steps = steps + (least > tolerance)
        better = (least > tolerance) & (gap < least)
        best, least = torch.where(better, point, best), torch.where(better, gap, least)
        if told((least <= tolerance) | gap.isnan()):
            break
        points, changes = [*points[-MEMORY:], point], [*changes[-MEMORY:], moved]
        point = admissible(_mixed(points, changes))
    return best, least, steps


def _mixed(points: list[Tensor], changes: list[Tensor]) -> Tensor:
    """The last point plus its change, corrected so that the changes so far, mixed alike, nearly vanish."""
    if len(points) == 1:
        return points[0] + changes[0]
    steps, turns = torch.stack(points).diff(dim=0), torch.stack(changes).diff(dim=0)
    exact = turns.double()
    system = exact @ exact.mT
    system.diagonal().mul_(1 + RIDGE).add_(torch.finfo(system.dtype).tiny)
    weights, _ = torch.linalg.solve_ex(system, exact @ changes[-1].double())
    return points[-1] + changes[-1] - weights.to(steps) @ (steps + turns)
