"""CoOp: context words shared by all classes, learned in front of the class names (Zhou et al., IJCV 2022)."""

from __future__ import annotations

from pyro.distributions import Normal
from torch import Tensor

from bayes_clip.backbone.prompts import task_prompts
from bayes_clip.model import Context, TextSideModel
from bayes_clip.recipe import Recipe


class CoOp(TextSideModel):
    """V ~ N(E, v e² I); t_c = text encoder of [V, class name c]; logits = s X Tᵀ.

    V (M, W): M context tokens of the text encoder's width W; E: the embeddings of the template's own words in
    front of the class name (behind it, where the template begins with it), e² their mean square, v:
    `prior_variance`. At the prior mean it is zero-shot CLIP with that template: the first, where there are
    several (their average is another classifier). X (N, D): unit image features; T (C, D): unit. A search
    tries no v above 1: under wider priors contexts pass near zero, where the encoder's layer norms make
    logits jump, and modes are found there that fit the support set alone.
    """

    uses_encoder = True
    widest_prior = 1.0
    recipe = Recipe(
        source="CoOp (Zhou et al., IJCV 2022; KaiyangZhou/CoOp), class token at the end",
        optimizer="sgd",
        learning_rate=0.002,
        momentum=0.9,
        weight_decay=5e-4,
        epochs={1: 50, 2: 100, 4: 100, 8: 200, 16: 200},
        batch_size=32,
        drop_last=True,
        warm_up_epochs=1,
        augmentation=True,
        deviations=(
            "starts from the words of the template, as the authors' own alternative does, and not from 16 "
            "random tokens",
        ),
    )

    def __init__(self, context: Context, prior_variance: float) -> None:
        super().__init__(context, prior_variance)
        self.prompts = task_prompts(context)

    @property
    def numbers_per_class(self) -> int:
        return self.prompts.numbers

    def prior(self) -> dict[str, Normal]:
        words = self.prompts.contexts
        width = (self.prior_variance * words.square().mean()) ** 0.5
        return {"contexts": Normal(words, width).to_event(2)}

    def features_of(self, weights: dict[str, Tensor], classes: Tensor) -> Tensor:
        return self.prompts.encode(weights["contexts"].unsqueeze(-3), classes)
