"""A linear classifier on CLIP features whose prior is zero-shot CLIP."""

from __future__ import annotations

from pyro.distributions import Normal
from torch import Generator, Tensor, randn
from torch.nn.functional import normalize

from bayes_clip.model import AdapterModel
from bayes_clip.recipe import TEXT_LENGTH, Recipe


class LinearProbe(AdapterModel):
    """W ~ N(T, v I); logits = s X Wᵀ.

    X (N, D): unit image features; T (C, D): unit text features, zero where there are none; s: the backbone's
    logit scale; v: `prior_variance`. At the prior mean the logits are those of zero-shot CLIP. With mean
    cross-entropy its mode is the class-independent form of CLAP (Silva-Rodríguez et al., CVPR 2024).
    """

    recipe = Recipe(
        source="ZS-LP (Silva-Rodríguez et al., CVPR 2024; jusiro/CLAP)",
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        epochs=300,
        batch_size=256,
        drop_last=True,
        warm_up_epochs=1,
        augmentation=True,
        deviations=(f"class weights start {TEXT_LENGTH:g} long, not as long as the text encoder's output",),
    )

    def prior(self) -> dict[str, Normal]:
        return {"class_weights": Normal(self.text_features, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return self.logit_scale * inputs @ weights["class_weights"].mT

    def start(self, generator: Generator) -> dict[str, Tensor]:
        """The texts' directions, or random ones where there is no text."""
        texts = self.text_features
        if not self.context.has_text:
            texts = normalize(randn(texts.shape, generator=generator), dim=-1)
        return {"class_weights": TEXT_LENGTH * texts}

    def loss(self, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        """The authors' classifier is a cosine one: its class weights are scaled to unit length."""
        return super().loss(self.finish(weights), inputs, labels)

    def finish(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"class_weights": normalize(weights["class_weights"], dim=-1)}
