"""Gaussian beliefs over the weights of a model, by the structure of their covariance."""

from bayes_clip.gaussian.belief import Belief, Projection
from bayes_clip.gaussian.class_block import ClassBlock
from bayes_clip.gaussian.cost import allocation_note, bytes_needed, check_fits, largest_batch
from bayes_clip.gaussian.diagonal import Diagonal
from bayes_clip.gaussian.full import Full
from bayes_clip.gaussian.kronecker import Kronecker
from bayes_clip.gaussian.low_rank import LowRankPrecision
from bayes_clip.gaussian.variational_diagonal import VariationalDiagonal

FAMILIES: dict[str, type[Belief]] = {
    "full": Full,
    "class_block": ClassBlock,
    "kronecker": Kronecker,
    "low_rank": LowRankPrecision,
    "diagonal": Diagonal,
    "diagonal_variational": VariationalDiagonal,
}

__all__ = [
    "FAMILIES",
    "Belief",
    "ClassBlock",
    "Diagonal",
    "Full",
    "Kronecker",
    "LowRankPrecision",
    "Projection",
    "VariationalDiagonal",
    "allocation_note",
    "bytes_needed",
    "check_fits",
    "largest_batch",
]
