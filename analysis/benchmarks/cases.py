"""All benchmark cases, their sizes, and toy sizes at which each runs in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from analysis.benchmarks import (
    blocked_filter,
    encode,
    fit,
    posterior_mode,
    predictive_variance,
    update_diagonal,
    vi_step,
)
from analysis.benchmarks.contest import Contest, Size


@dataclass(frozen=True)
class Case:
    """Where a case's contests come from, and at which sizes it is run."""

    contests: Callable[[Size, torch.device], Iterator[Contest]]
    sizes: tuple[Size, ...]
    toy: Size
    on_gpu: bool = True  # whether ours and a peer run there


CASES: dict[str, Case] = {
    "fit": Case(fit.contests, (Size(47, 512, 752), Size(400, 512, 800)), Size(5, 16, 20)),
    "predictive_variance": Case(predictive_variance.contests, (Size(100, 512, 1000),), Size(4, 16, 12)),
    "update_diagonal": Case(update_diagonal.contests, (Size(47, 512, 47),), Size(4, 16, 6)),
    "vi_step": Case(vi_step.contests, (Size(47, 512, 752),), Size(4, 16, 12)),
    "map": Case(
        posterior_mode.contests, (Size(47, 512, 752), Size(100, 512, 1600)), Size(4, 16, 20), on_gpu=False
    ),
    "blocked_filter": Case(
        blocked_filter.contests, (Size(100, 512, 512, f"b{blocked_filter.BLOCK}"),), Size(4, 16, 70, "b64")
    ),
    "encode": Case(encode.contests, (Size(0, 128, 1024),), Size(0, 128, 8)),
}
