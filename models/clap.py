"""CLAP: a linear probe whose prior is tighter for the classes that zero-shot CLIP knows."""

from __future__ import annotations

from dataclasses import replace

import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from bayes_clip.model import AdapterModel, find_model
from bayes_clip.recipe import TEXT_LENGTH

probe = find_model("linear_probe").recipe
assert probe is not None


class ClassAdaptiveProbe(AdapterModel):
    """w_c ~ N(t_c, σ_c² I) with σ_c² = v λ̄ / λ_c; logits = s f · w_c.

    Silva-Rodríguez, Hajimiri, Ben Ayed & Dolz, "A Closer Look at the Few-Shot Adaptation of Large
    Vision-Language Models" (CVPR 2024). λ_c: the mean zero-shot probability of class c over its own support
    rows; λ̄: its mean over the classes. Site ``class_weights`` (C, D); t_c: unit text features, zero where
    there are none; f: unit image features. v = `prior_variance` is the harmonic mean of the σ_c². The mean
    cross-entropy of N rows with the published penalty, the mean over C classes of λ_c |w_c − t_c|², is the
    negative log posterior of σ_c² = C / (2 λ_c N); here v is chosen from the support set instead.

    One row that zero-shot gives λ̄ counts beside those of a class. Without it a class whose only picture
    zero-shot gets wrong has hardly any prior at all; a class without rows has λ_c = λ̄.

    The authors' classifier is a cosine one. Under `sgd` it is trained as such, and ends in unit class
    weights; elsewhere the class weights keep their length, and the program is a linear head.
    """

    uses_support = True
    recipe = replace(
        probe,
        source="CLAP (Silva-Rodríguez et al., CVPR 2024; jusiro/CLAP, constraint l2)",
        deviations=(
            *probe.deviations,
            "one row of average zero-shot confidence added to those of each class",
        ),
    )

    def confidence(self) -> Tensor:
        """λ (C,)."""
        support = self.context.support
        assert support is not None, "CLAP reads the support rows"
        classes = len(self.class_names)
        chances = (self.logit_scale * support.inputs @ self.text_features.mT).softmax(-1)
        member = one_hot(support.labels, classes).to(chances)
        counts, sums = member.sum(0), (member * chances).sum(0)
        average = (sums / counts)[counts > 0].mean()
        return (sums + average) / (counts + 1)

    def prior(self) -> dict[str, Normal]:
        confidence = self.confidence()
        variance = self.prior_variance * confidence.mean() / confidence
        return {"class_weights": Normal(self.text_features, variance.sqrt()[:, None]).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return self.logit_scale * inputs @ weights["class_weights"].mT

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {"class_weights": TEXT_LENGTH * self.text_features}

    def loss(self, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the cosine classifier + mean over classes of λ_c |w_c − t_c|²."""
        fit = cross_entropy(self.logits(self.finish(weights), inputs), labels)
        away = (weights["class_weights"] - TEXT_LENGTH * self.text_features).square().sum(-1)
        return fit + (self.confidence() * away).mean()

    def finish(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"class_weights": normalize(weights["class_weights"], dim=-1)}
