"""CLIP-Adapter without its outer ReLU, as a Bayesian model: its prior mean is zero-shot and has a slope."""

from __future__ import annotations

from dataclasses import replace

import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import normalize, relu

from bayes_clip.model import AdapterModel, Context, find_model

RATIO = 0.2
REDUCTION = 4
SEED = 0

published = find_model("clip_adapter").recipe
assert published is not None


class ClipAdapterNoRelu(AdapterModel):
    """U ~ N(0, v I); logits = s f · t_c with f = r Q U ReLU(V x) + (1 − r) x scaled to unit length, r = 0.2.

    After Gao et al. (IJCV 2024), see `clip_adapter`: no biases, D / 4 hidden features, inputs x (N, D) image
    features of their own length, which cancels. Without the outer ReLU the logits have a slope at U = 0,
    where they are those of zero-shot CLIP, and the labels can say which way to go.

    Only the last layer is uncertain, site ``up`` (r', D/4): at U = 0 the labels say nothing about the first
    one. V (D/4, D) is drawn once, from a fixed seed, with variance 8 / D, under which the hidden features are
    as long as x on average. Q (D, r'), r' = min(C, D), is an orthonormal basis of the span of the class
    texts: what leaves that span changes no inner product with a text, only the length that all logits of a
    row are divided by. So there are C D / 4 weights instead of D² / 2. v: `prior_variance`.
    """

    takes = "raw"
    needs_text = True
    recipe = replace(
        published,
        source="the recipe of clip_adapter",
        deviations=("the last layer alone is trained, from zero, within the span of the class texts",),
    )

    def __init__(self, context: Context, prior_variance: float) -> None:
        super().__init__(context, prior_variance)
        size = self.text_features.shape[1]
        hidden = max(1, size // REDUCTION)
        drawn = torch.randn(hidden, size, generator=torch.Generator().manual_seed(SEED))
        self.first = (2 / hidden) ** 0.5 * drawn.to(self.text_features)  # V
        self.basis = torch.linalg.qr(self.text_features.mT.double()).Q.to(self.text_features)  # Q

    def prior(self) -> dict[str, Normal]:
        none = self.text_features.new_zeros(self.basis.shape[1], len(self.first))
        return {"up": Normal(none, self.prior_variance**0.5).to_event(2)}

    def on_classes(self, context: Context) -> ClipAdapterNoRelu:
        other = ClipAdapterNoRelu(context, self.prior_variance)
        other.basis = self.basis  # the weights are along the texts that they were learned with
        return other

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        adapted = relu(inputs @ self.first.mT) @ weights["up"].mT @ self.basis.mT
        mixed = RATIO * adapted + (1 - RATIO) * inputs
        return self.logit_scale * normalize(mixed, dim=-1) @ self.text_features.mT
