"""What the blocked class-block filter has to move and to compute, and the least time that takes.

Counts, not measurements: a bound from a device's memory and arithmetic rates. It leaves out the launches
of kernels, and that every label of a block has to wait for the one before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bayes_clip.rates import Rates

# As published for the NVIDIA H200 NVL: float32 outside the tensor cores, and its memory's bandwidth.
H200_CLASS = Rates(gemm_flops_per_second=60e12, copy_bytes_per_second=4.8e12)


@dataclass(frozen=True)
class Work:
    """Bytes between memory and processor, and additions and multiplications."""

    bytes_moved: int
    operations: int

    def seconds(self, rates: Rates) -> float:
        """The longer of moving and computing: what no implementation of this work stays below."""
        return rates.seconds(self.operations, self.bytes_moved)


def visit(classes: int, features: int, removed: int, products: int, itemsize: int = 4) -> Work:
    """`visit.visit` of C covariances (D, D) with factors of b₁ = `removed` columns and b₂ = `products` rows.

    The covariance is read, and written where anything is removed; the factors are read and P Φᵀ written once.
    """
    covariance = classes * features**2 * (2 if removed else 1)
    factors = classes * features * (2 * removed + products) + features * products
    return Work(itemsize * (covariance + factors), 2 * classes * features**2 * (removed + products))


def around(classes: int, features: int, count: int, itemsize: int = 4) -> Work:
    """The Gram matrices Φ P Φᵀ before the recursion, and P Φᵀ B for the downdate after it."""
    cross, small = classes * features * count, classes * count**2
    return Work(itemsize * (3 * cross + 2 * small), 4 * cross * count)


def recursion(classes: int, count: int, itemsize: int = 4) -> Work:
    """`recursion.recursion` of b = `count` labels, and the block's downdate from it.

    Rows M (b³ / 3 operations per class), their collection L (b³ / 3) and L diag(β) Lᵀ (2 b³), and about 100
    operations per label and class for its mode. The upper half of the Gram matrices is read and M written
    twice, L and the downdate written, M and L read once more.
    """
    square = classes * count**2
    return Work(itemsize * (square // 2 + 5 * square), square * (8 * count // 3 + 1) + 100 * classes * count)


def filter_seconds(
    classes: int, features: int, rows: int, count: int, rates: Rates, itemsize: int = 4
) -> float:
    """Least seconds for N = `rows` labels in blocks of `count`, one stage after another.

    The first visit only multiplies, the last only removes; rows that fill no block count as a whole one.
    """
    blocks = -(-rows // count)
    between = visit(classes, features, count, count, itemsize).seconds(rates)
    ends = visit(classes, features, 0, count, itemsize), visit(classes, features, count, 0, itemsize)
    small = around(classes, features, count, itemsize), recursion(classes, count, itemsize)
    return (
        (blocks - 1) * between
        + sum(work.seconds(rates) for work in ends)
        + blocks * sum(work.seconds(rates) for work in small)
    )
