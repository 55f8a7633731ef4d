"""CLIP-Adapter as published: a small network with two ReLUs, mixed into the image features."""

from __future__ import annotations

import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import normalize, relu

from bayes_clip.model import AdapterModel
from bayes_clip.recipe import Recipe

RATIO = 0.2
REDUCTION = 4
SEED = 0


class ClipAdapter(AdapterModel):
    """A = ReLU(U ReLU(V x)); logits = s f · t_c with f = r A + (1 − r) x scaled to unit length, r = 0.2.

    Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters" (IJCV 2024). V (D/4, D)
    and U (D, D/4): sites ``down`` and ``up``, no biases; inputs x (N, D): image features of their own length.
    The network is homogeneous, A(c x) = c A(x) for c > 0, so that this length cancels: from unit features
    come the same logits and the same gradients.

    At the prior mean U = 0 and the logits are those of zero-shot CLIP; but there the outer ReLU passes no
    gradient. So it is trained as published or left alone; `clip_adapter_no_relu` is the Bayesian variant.
    """

    takes = "raw"
    needs_text = True
    engines = ("zero_shot", "sgd")
    recipe = Recipe(
        source="CLIP-Adapter (Gao et al., IJCV 2024; gaopengcuhk/CLIP-Adapter under CoOp's trainer)",
        optimizer="sgd",
        learning_rate=2e-3,
        momentum=0.9,
        weight_decay=5e-4,
        epochs={1: 50, 2: 100, 8: 200},
        batch_size=32,
        drop_last=True,
        warm_up_epochs=1,
        augmentation=True,
    )

    def prior(self) -> dict[str, Normal]:
        start = self.start(torch.Generator().manual_seed(SEED))
        width = self.prior_variance**0.5
        return {
            "down": Normal(start["down"], width).to_event(2),
            "up": Normal(torch.zeros_like(start["up"]), width).to_event(2),
        }

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """As torch draws its linear layers: uniform within 1 / √(inputs of the layer)."""
        size = self.text_features.shape[1]
        hidden = max(1, size // REDUCTION)
        return {
            "down": (2 * torch.rand(hidden, size, generator=generator) - 1).to(self.text_features)
            / size**0.5,
            "up": (2 * torch.rand(size, hidden, generator=generator) - 1).to(self.text_features)
            / hidden**0.5,
        }

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        adapted = relu(relu(inputs @ weights["down"].mT) @ weights["up"].mT)
        mixed = RATIO * adapted + (1 - RATIO) * inputs
        return self.logit_scale * normalize(mixed, dim=-1) @ self.text_features.mT
