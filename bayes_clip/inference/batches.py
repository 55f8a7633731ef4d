"""The order in which a filter sees its data: balanced over classes, as given, or random."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bayes_clip.errors import UserError, nearest
from bayes_clip.gaussian.cost import largest_batch

ORDERS: dict[str, str] = {
    "balanced": "one shot of every class after another (default)",
    "given": "as the support set stands",
    "random": "shuffled by the seed",
}
SMALLEST_BALANCED = 32
LARGEST_BALANCED = 128
LARGEST_BLOCK = 64  # rows learned one after another in one visit of the covariance
GRAM_BYTES = 2**25  # of the C Gram matrices (b, b) in float64 that a batch is seen through


def rows_of_gram(classes: int) -> int:
    """The most rows b for which C Gram matrices (b, b) keep within 32 MiB."""
    return max(1, int((GRAM_BYTES / (8 * classes)) ** 0.5))


def default_batch_size(classes: int, covariance: str = "") -> int:
    """Rows per balanced batch: as many whole shots of every class as fit in 32 rows, at least one shot.

    Never more than 128 rows, nor more than 32 MiB of Gram matrices (C b² numbers), nor than the covariance
    bears: one that sees all logits of a batch jointly splits the shots of more than 32 classes.

    Raises:
        UserError: unknown covariance.
    """
    most = largest_batch(covariance, classes) if covariance else None
    shots = max(classes, SMALLEST_BALANCED // classes * classes)
    return min(shots, LARGEST_BALANCED, rows_of_gram(classes), most or LARGEST_BALANCED)


def shot_numbers(labels: Tensor) -> Tensor:
    """For each row, how many rows of its class stand before it, (N,)."""
    counted = torch.nn.functional.one_hot(labels).cumsum(0)
    return counted.gather(1, labels[:, None])[:, 0] - 1


def row_order(labels: Tensor, order: str, seed: int) -> Tensor:
    """The rows 0..N−1 in the order in which they are fed, (N,).

    Balanced: by shot number, the classes of each shot in an order drawn from `seed`.

    Raises:
        UserError: unknown order.
    """
    labels = labels.cpu()
    if order == "given":
        return torch.arange(len(labels))
    generator = np.random.default_rng(seed)
    if order == "random":
        return torch.from_numpy(generator.permutation(len(labels)))
    if order == "balanced":
        shuffled = torch.from_numpy(generator.permutation(int(labels.max()) + 1))
        return torch.from_numpy(np.lexsort((shuffled[labels].numpy(), shot_numbers(labels).numpy())))
    raise UserError(f"--order {order}: no such order.{nearest(order, ORDERS)} Known: {', '.join(ORDERS)}")


def batches(
    labels: Tensor, classes: int, order: str, batch_size: int | None, seed: int, covariance: str = ""
) -> list[Tensor]:
    """Row numbers of each batch, in the order in which a filter sees them.

    Without a batch size it is the default for so many classes and that covariance.

    Raises:
        UserError: unknown order or a batch size below one.
    """
    if batch_size is not None and batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: must be at least 1")
    return list(row_order(labels, order, seed).split(batch_size or default_batch_size(classes, covariance)))


def balanced_folds(labels: Tensor, most: int) -> list[Tensor]:
    """Row numbers of each fold: fold f holds every shot number that leaves remainder f, at most `most` folds.

    Every fold takes the same number of shots from every class that has them, so what remains stays balanced.
    Empty where the largest class has a single row.
    """
    shots = shot_numbers(labels.cpu())
    count = min(int(shots.max()) + 1, most)
    if count < 2:
        return []
    return [torch.nonzero(shots % count == fold)[:, 0] for fold in range(count)]
