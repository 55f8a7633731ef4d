"""Case `encode`: pictures that are already preprocessed go through the image encoder of pocket_clip.

The peer is a bare loop over open_clip's model and the same tensors. Nothing can be much faster than that:
the aim is at least 95 % of its throughput, a speedup of 0.95. Agreement: largest difference of a feature,
relative to the largest feature. The limit counts the operations that PyTorch counts in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from analysis.benchmarks.contest import Contest, Size, Work
from analysis.benchmarks.peers import titled
from bayes_clip.backbone.encoder import load_backbone

BATCH = 64
TOLERANCE = 1e-4


def contests(size: Size, device: torch.device) -> Iterator[Contest]:
    """One contest; D and the side of the pictures are pocket_clip's own."""
    backbone = load_backbone(device=str(device))
    side = backbone.model.visual.image_size
    shape = (size.rows, 3, *((side, side) if isinstance(side, int) else side))
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    parts = list(pixels.split(BATCH))

    def agreement(ours: Tensor, theirs: Tensor) -> float:
        return float((ours - theirs).abs().max() / theirs.abs().max())

    yield Contest(
        case=f"encode@{size}",
        ours=lambda: backbone.encode_pixels(pixels, batch_size=BATCH),
        peers={titled("open_clip_torch", "loop"): lambda: bare_loop(backbone.model, parts, device)},
        agreement=agreement,
        tolerance=TOLERANCE,
        work=work(backbone.model, parts, device),
        rounds=7,
    )


@torch.inference_mode()
def bare_loop(model: Any, parts: list[Tensor], device: torch.device) -> Tensor:
    """What anyone would write: batches through the encoder, features back to the CPU."""
    with torch.autocast("cuda", torch.float16, enabled=device.type == "cuda"):
        return torch.cat([model.encode_image(part.to(device)).float().cpu() for part in parts])


def work(model: Any, parts: list[Tensor], device: torch.device) -> Work:
    """Matrix products and convolutions as PyTorch counts them; pixels and weights read once a batch."""
    with FlopCounterMode(display=False) as counter:
        bare_loop(model, parts[:1], device)
    rows = sum(len(part) for part in parts)
    weights = sum(weight.numel() for weight in model.visual.parameters())
    numbers = sum(part.numel() for part in parts) + weights * len(parts)
    return Work(counter.get_total_flops() * rows / len(parts[0]), 4 * numbers)
