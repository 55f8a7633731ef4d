"""Diagonal sites on Gram blocks, class by class: the inverses that a rule needs at every step.

Classes are taken a few at a time on a CPU, so that what is computed of them stays in the cache. Vectors have
the classes first here, (C, b), and are contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bayes_clip.gaussian.matrices import inverted
from bayes_clip.threads import shared_out

CACHED = 2**17  # entries of the blocks taken at once: 1 MiB in float64


def class_groups(blocks: Tensor, *vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks (C, b, b) and what belongs to them, some classes at a time; on CUDA all at once."""
    size = len(blocks) if blocks.is_cuda else max(1, CACHED // blocks[0].numel())
    yield from zip(*(tensor.split(size) for tensor in (blocks, *vectors)), strict=True)


def joined(parts: list[Tensor]) -> Tensor:
    """The parts along the first axis; one part as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def block_times(blocks: Tensor, vectors: Tensor) -> Tensor:
    """Each block (b, b) times its vector, (C, b)."""
    if blocks.is_cuda:
        return (blocks @ vectors[..., None])[..., 0]
    return joined([(part * vector[:, None, :]).sum(-1) for part, vector in class_groups(blocks, vectors)])


def inverses(blocks: Tensor, weights: Tensor) -> tuple[list[Tensor], Tensor]:
    """E = (I + W G)⁻¹ W of some classes at a time, and log |I + W G| of all of them.

    E = W^½ (I + W^½ G W^½)⁻¹ W^½ for site precisions w (C, b), so that no w is divided by.
    """
    parts = shared_out(lambda group: _inverse(*group), list(class_groups(blocks, weights)))
    return [inverse for inverse, _ in parts], torch.stack([found for _, found in parts]).sum()


def posteriors(blocks: Tensor, weights: Tensor, pulls: Tensor) -> tuple[Tensor, Tensor]:
    """Excess G a and variance of the logits, (C, b) each, for site precision w and pull t: a = t − E G t."""
    parts = shared_out(lambda group: _posterior(*group), list(class_groups(blocks, weights, pulls)))
    return joined([excess for excess, _ in parts]), joined([variance for _, variance in parts])


def _inverse(blocks: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    root = weights.sqrt()
    scale = root[:, :, None] * root[:, None, :]
    inner = scale * blocks
    inner.diagonal(dim1=1, dim2=2).add_(1)
    inverse, log_determinant = inverted(inner)
    return inverse.mul_(scale), log_determinant


def _posterior(blocks: Tensor, weights: Tensor, pulls: Tensor) -> tuple[Tensor, Tensor]:
    cross = blocks @ _inverse(blocks, weights)[0]  # G E
    seen = block_times(blocks, pulls)
    excess = seen - block_times(cross, seen)
    explained = cross.mul_(blocks).sum(-1)
    return excess, (blocks.diagonal(dim1=1, dim2=2) - explained).clamp_min_(0)
