"""Gaussian discriminant analysis beside zero-shot CLIP, as the prior mean of a linear classifier."""

from __future__ import annotations

from functools import cached_property

import torch
from pyro.distributions import Normal
from torch import Tensor

from bayes_clip.discriminant import discriminant, weight_by_folds
from bayes_clip.model import AdapterModel

WEIGHTS = tuple(10.0 ** (power / 2) for power in range(-8, 5))  # of the discriminant, 1e-4 to 1e2
WEIGHT_AT_ONE_SHOT = 0.01


class GaussianDiscriminant(AdapterModel):
    """W ~ N(M, v I) with s M = s T + α (D, b); logits = s (f, 1) Wᵀ.

    Wang, Liang, Sheng, He, Wang & Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation"
    (ICLR 2024). D (C, D), b (C,): the discriminant of the support rows in closed form
    (`bayes_clip.discriminant`); T: unit text features; f: unit image features, with a constant 1 appended.
    Site ``class_weights`` (C, D + 1). At the prior mean it is the authors' training-free classifier
    (engine `zero_shot`).

    α, which the authors choose from 1e-4, ..., 1e2 by accuracy on other pictures, is chosen from the same
    range in half-decades by the likelihood of balanced folds of the support set. At one shot, where nothing
    can be left out, it is 0.01. v: `prior_variance`.

    The support rows are read twice, as prior mean and as data: beyond `zero_shot` what it says is too sure.
    """

    uses_support = True

    @cached_property
    def centre(self) -> Tensor:
        """M (C, D + 1), found once: with folds it takes many times what a look at the prior may take."""
        support = self.context.support
        assert support is not None, "GDA reads the support rows"
        features, labels, scale = support.inputs, support.labels, self.logit_scale
        zero_shot = scale * features @ self.text_features.mT
        weight = weight_by_folds(features, labels, zero_shot, WEIGHTS) or WEIGHT_AT_ONE_SHOT
        found = discriminant(features, labels, len(self.class_names))
        slopes = self.text_features + weight / scale * found.weights
        return torch.cat([slopes, weight / scale * found.bias[:, None]], dim=-1)

    def prior(self) -> dict[str, Normal]:
        return {"class_weights": Normal(self.centre, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        design = torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)
        return self.logit_scale * design @ weights["class_weights"].mT
