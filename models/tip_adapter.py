"""Tip-Adapter: a cache of the support features beside zero-shot CLIP, its keys uncertain."""

from __future__ import annotations

from types import MappingProxyType

from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from bayes_clip.model import AdapterModel, Support
from bayes_clip.recipe import Recipe

ALPHA = 2.0  # weight of the cache beside logits of scale 100: the authors' setting for DTD and EuroSAT
BETA = 5.5  # sharpness of the affinity
PUBLISHED_LOGIT_SCALE = 100.0


class TipAdapter(AdapterModel):
    """K ~ N(F, (v / β²) I); logits = s f · t_c + α exp(−β (1 − f Kᵀ)) V.

    Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification" (ECCV 2022). F
    (N, D): the unit features of the support rows, prior mean of the keys, site ``keys`` (N, D); V (N, C):
    their one-hot labels; f: unit image features. Affinities are of unit features: a known re-implementation
    forgets this. α = 2 and β = 5.5 for all tasks, where the authors search both on other pictures; for a
    backbone of another logit scale s the cache is scaled alike, α s / 100. At the prior mean it is the
    training-free Tip-Adapter (engine `zero_shot`); under `sgd` it is Tip-Adapter-F. The keys are not scaled
    back to unit length once they move, as in the authors' code.

    v = `prior_variance` is the prior variance of an exponent −β (1 − f · k). It is searched up to 1: the
    logits grow exponentially with the keys, and a wider prior would be judged by a slope that holds nowhere.

    The support rows are read twice, as cache and as data: what it says of them is too sure.
    """

    uses_support = True
    widest_prior = 1.0
    feature_axes = MappingProxyType({"keys": 1})
    recipe = Recipe(
        source="Tip-Adapter-F (Zhang et al., ECCV 2022; gaopengcuhk/Tip-Adapter)",
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,  # torch's default, which the authors keep
        epsilon=1e-4,
        epochs=20,
        batch_size=256,
        cosine_by="step",
        augmentation=True,
        smallest_crop=0.5,
        deviations=(
            "the last epoch, where the authors keep the one of the best test accuracy",
            "alpha 2 and beta 5.5 for all tasks, where the authors search both on held-out pictures",
            "a cache of one view of each picture, where the authors average ten",
        ),
    )

    @property
    def support(self) -> Support:
        """The rows of the cache."""
        assert self.context.support is not None, "Tip-Adapter keeps its support rows"
        return self.context.support

    def prior(self) -> dict[str, Normal]:
        keys = normalize(self.support.inputs, dim=-1)
        return {"keys": Normal(keys, self.prior_variance**0.5 / BETA).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        features = normalize(inputs, dim=-1)
        values = one_hot(self.support.labels, len(self.class_names)).to(features)
        affinity = (-BETA * (1 - features @ weights["keys"].mT)).exp()
        cache = ALPHA * self.logit_scale / PUBLISHED_LOGIT_SCALE * affinity @ values
        return self.logit_scale * features @ self.text_features.mT + cache
