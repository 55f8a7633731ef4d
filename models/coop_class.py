"""CoOp with context words of each class's own (CSC; Zhou et al., IJCV 2022)."""

from __future__ import annotations

from pyro.distributions import Normal
from torch import Tensor

from bayes_clip.backbone.prompts import task_prompts
from bayes_clip.model import Context, TextSideModel, find_model


class CoOpClass(TextSideModel):
    """V_c ~ N(E, v e² I) for each class; t_c = text encoder of [V_c, class name c]; logits = s X Tᵀ.

    V (C, M, W): M context tokens for each of C classes; everything else as in `coop`, its recipe too.
    """

    uses_encoder = True
    widest_prior = 1.0
    recipe = find_model("coop").recipe

    def __init__(self, context: Context, prior_variance: float) -> None:
        super().__init__(context, prior_variance)
        self.prompts = task_prompts(context)

    @property
    def numbers_per_class(self) -> int:
        return self.prompts.numbers

    def prior(self) -> dict[str, Normal]:
        words = self.prompts.contexts
        width = (self.prior_variance * words.square().mean()) ** 0.5
        return {"contexts": Normal(words.expand(len(self.class_names), -1, -1), width).to_event(3)}

    def features_of(self, weights: dict[str, Tensor], classes: Tensor) -> Tensor:
        return self.prompts.encode(weights["contexts"][..., classes, :, :], classes)
