"""Gaussian beliefs over the weights of a linear head, by the structure of their covariance."""

from bayes_clip.gaussian.belief import Belief, Projection
from bayes_clip.gaussian.class_block import ClassBlock
from bayes_clip.gaussian.cost import bytes_needed, check_fits
from bayes_clip.gaussian.diagonal import Diagonal
from bayes_clip.gaussian.full import Full

FAMILIES: dict[str, type[Belief]] = {"full": Full, "class_block": ClassBlock, "diagonal": Diagonal}

__all__ = [
    "FAMILIES",
    "Belief",
    "ClassBlock",
    "Diagonal",
    "Full",
    "Projection",
    "bytes_needed",
    "check_fits",
]
