"""A linear classifier on CLIP features whose prior is zero-shot CLIP."""

from __future__ import annotations

from pyro.distributions import Normal
from torch import Tensor

from bayes_clip.model import AdapterModel


class LinearProbe(AdapterModel):
    """W ~ N(T, v I); logits = s X Wᵀ.

    X (N, D): unit image features; T (C, D): unit text features, zero where there are none; s: the backbone's
    logit scale; v: `prior_variance`. At the prior mean the logits are those of zero-shot CLIP. With mean
    cross-entropy its mode is the class-independent form of CLAP (Silva-Rodríguez et al., CVPR 2024).
    """

    def prior(self) -> dict[str, Normal]:
        return {"class_weights": Normal(self.text_features, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return self.logit_scale * inputs @ weights["class_weights"].mT
