"""ProLIP: the last projection of the image encoder, with a Gaussian prior at the pretrained one."""

from __future__ import annotations

import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.model import AdapterModel, Context
from bayes_clip.recipe import Recipe


class VisualProjection(AdapterModel):
    """W = W₀ + Z Qᵀ, Z ~ N(0, v I); logits = s f · t_c with f = x W + b scaled to unit length.

    Fahes, Vu, Bursuc, Pérez & de Charette, "CLIP's Visual Embedding Projector is a Few-shot Cornucopia"
    (ProLIP). x (N, F): what the image tower has pooled before its projection; W₀ (F, D), b (D) or none: the
    pretrained projection; v: `prior_variance`. At the prior mean the logits are those of zero-shot CLIP. The
    published penalty λ |W − W₀|² with λ = 1 / shots, beside a mean cross-entropy over N rows, is the negative
    log posterior of v = 1 / (2 λ N) = 1 / (2 C).

    The authors move all of W. Here it moves along Q (D, r), an orthonormal basis of the span of the class
    texts, r = min(C, D): site ``change`` is Z (F, r), and |Z| = |W − W₀|. What moves x W out of that span
    changes no inner product with a text, only the length that all logits of a row are divided by.

    Where there are features alone and no pictures, x are the features and W₀ is the identity.
    """

    takes = "pooled"
    needs_text = True
    recipe = Recipe(
        source="ProLIP (Fahes et al.; astra-vision/ProLIP, lambda = 1 / shots, without validation)",
        optimizer="adam",
        learning_rate=1e-3,  # of 1e-2, 1e-3, 1e-4 and 1e-5, all of which the authors report
        epsilon=1e-4,
        steps=300,
        cosine_by="step",
        augmentation=True,
        deviations=("the projection moves within the span of the class texts alone",),
    )

    def __init__(self, context: Context, prior_variance: float) -> None:
        super().__init__(context, prior_variance)
        width, projection = self.text_features.shape[1], context.projection
        weight = torch.eye(width) if projection is None else projection.weight
        bias = None if projection is None else projection.bias
        self.pretrained = weight.to(self.text_features)  # W₀
        self.bias = (weight.new_zeros(width) if bias is None else bias).to(self.text_features)
        self.basis = torch.linalg.qr(self.text_features.mT.double()).Q.to(self.text_features)

    def prior(self) -> dict[str, Normal]:
        none = self.text_features.new_zeros(len(self.pretrained), self.basis.shape[1])
        return {"change": Normal(none, self.prior_variance**0.5).to_event(2)}

    def on_classes(self, context: Context) -> VisualProjection:
        other = VisualProjection(context, self.prior_variance)
        other.basis = self.basis  # the weights are along the texts that they were learned with
        return other

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        features = inputs @ self.pretrained + self.bias + inputs @ weights["change"] @ self.basis.mT
        return self.logit_scale * normalize(features, dim=-1) @ self.text_features.mT

    def loss(self, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy + |W − W₀|² / shots; batches are the whole support set."""
        shots = torch.bincount(labels).max()
        return super().loss(weights, inputs, labels) + weights["change"].square().sum() / shots
