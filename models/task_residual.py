"""TaskRes: a residual on every class text feature, under a cosine classifier."""

from __future__ import annotations

from types import MappingProxyType

import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.model import AdapterModel
from bayes_clip.recipe import TEXT_LENGTH, Recipe

SCALE = 0.5  # α as published; 1 for Oxford Flowers alone


class TaskResidual(AdapterModel):
    """X_c ~ N(0, v I); logits = s X̂ · (ℓ t_c + α x_c) / |ℓ t_c + α x_c|.

    Yu, Lu, Jin, Chen & Wang, "Task Residual for Tuning Vision-Language Models" (CVPR 2023). x_c (D): the
    residual of class c, site ``residuals`` (C, D); t_c: its unit text feature; α = 0.5; v: `prior_variance`.
    X̂ (N, D): unit image features. The sum is scaled back to unit length, as in the authors' code. They add
    residuals to text features as long as the encoder made them, we to unit ones times ℓ = 10: the length is
    lost on the way here, and ℓ only sets the unit of a residual. At the prior mean, zero, the logits are
    those of zero-shot CLIP. Without text features t_c = 0, where the direction of the sum has no derivative:
    then the plain linear classifier s X̂ · α x_c is taken.
    """

    feature_axes = MappingProxyType({"residuals": 1})
    recipe = Recipe(
        source="TaskRes (Yu et al., CVPR 2023; geekyutao/TaskRes, adam_lr2e-3_B256)",
        optimizer="adam",
        learning_rate=2e-3,
        weight_decay=5e-4,  # the default of the trainer (Dassl)
        epochs={1: 100, 8: 200},
        batch_size=256,
        drop_last=True,
        warm_up_epochs=1,
        augmentation=True,
        deviations=(
            "residuals on unit text features times 10 instead of on those of the encoder's own length",
        ),
    )

    def prior(self) -> dict[str, Normal]:
        none = torch.zeros_like(self.text_features)
        return {"residuals": Normal(none, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        moved = TEXT_LENGTH * self.text_features + SCALE * weights["residuals"]
        classes = normalize(moved, dim=-1) if self.context.has_text else moved
        return self.logit_scale * inputs @ classes.mT
