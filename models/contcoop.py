"""ContCoOp: contexts that attend to the class name before the text encoder (arXiv 2412.20895)."""

from __future__ import annotations

from dataclasses import replace

import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from bayes_clip.backbone.prompts import task_prompts
from bayes_clip.model import Context, TextSideModel, find_model

DISTILLATION = 1.0  # lambda, ours: the authors' is not known

coop = find_model("coop").recipe
assert coop is not None


class ContCoOp(TextSideModel):
    """Contexts V_m + g_m ⊙ Σ_j a_mj e_cj, with a_m = softmax_j(√W cos(V_m, e_cj)); then as in `coop`.

    V (M, W) ~ N(E, v e² I): context tokens, as in `coop`; e_cj (W,): token embeddings of the name of class c,
    from the model in use, so that the prompt moves with them; g (M, W) ~ N(0, v I): what each context takes
    over of them. At the prior mean g is zero and the prompt is the template's: zero-shot CLIP.

    Of the paper it is known that an attention layer fuses learnable contexts with class embeddings before
    the text encoder, and that the loss is cross-entropy plus lambda times distillation from zero-shot. Heads,
    width, lambda, the number of contexts, optimizer and length of training are not, nor is any code. This is
    the least such layer: one head, with identity maps of queries and keys, a residual path, and a
    diagonal value map for each context, so that it has 2 M W weights; lambda is 1; the recipe is CoOp's.
    """

    uses_encoder = True
    widest_prior = 1.0
    recipe = replace(
        coop,
        source="ContCoOp (arXiv 2412.20895), whose own recipe is not known: that of CoOp (KaiyangZhou/CoOp)",
        deviations=("the recipe is CoOp's, and lambda is 1: the authors' are not known",),
    )

    def __init__(self, context: Context, prior_variance: float) -> None:
        super().__init__(context, prior_variance)
        self.prompts = task_prompts(context)

    @property
    def numbers_per_class(self) -> int:
        return self.prompts.numbers

    def prior(self) -> dict[str, Normal]:
        words = self.prompts.contexts
        width = self.prior_variance**0.5
        return {
            "contexts": Normal(words, width * words.square().mean() ** 0.5).to_event(2),
            "gates": Normal(torch.zeros_like(words), width).to_event(2),
        }

    def features_of(self, weights: dict[str, Tensor], classes: Tensor) -> Tensor:
        contexts, gates = (weights[name].unsqueeze(-3) for name in ("contexts", "gates"))
        names, is_name = self.prompts.names[classes], self.prompts.is_name[classes]
        cosines = normalize(contexts, dim=-1) @ normalize(names, dim=-1).mT  # (..., n, M, L)
        scores = cosines * names.shape[-1] ** 0.5
        attention = scores.masked_fill(~is_name[:, None], -torch.inf).softmax(-1)
        return self.prompts.encode(contexts + gates * (attention @ names), classes)

    def loss(self, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy plus lambda times KL(zero-shot || adapted), the zero-shot of the template."""
        said = self.logits(weights, inputs).log_softmax(-1)
        zero_shot = self._zero_shot(inputs)
        distillation = (zero_shot.exp() * (zero_shot - said)).sum(-1).mean()
        return cross_entropy(said, labels) + DISTILLATION * distillation

    def _zero_shot(self, inputs: Tensor) -> Tensor:
        """Log probabilities (N, C) at the prior mean."""
        mean = {name: distribution.mean for name, distribution in self.prior().items()}
        with torch.no_grad():
            return self.logits(mean, inputs).log_softmax(-1)
