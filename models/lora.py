"""CLIP-LoRA: low-rank changes of the attention maps of both encoders (Zanella & Ben Ayed, CVPR-W 2024)."""

from __future__ import annotations

import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.backbone.image_tower import image_tower
from bayes_clip.backbone.prompts import task_prompts
from bayes_clip.backbone.text_tower import LowRankChange
from bayes_clip.model import Context, TwoTowerModel
from bayes_clip.recipe import Recipe

RANK = 2
ALPHA = 1.0


class LoRA(TwoTowerModel):
    """W' = W + (α / r) B A for the query, key and value maps of each encoder's last attention layer.

    A (3, r, W) ~ N(A₀, v a² I), B (3, W, r) ~ N(0, v b² I) per encoder; r = 2, α = 1; A₀: uniform draws from
    a fixed seed, as LoRA starts, a² their mean square. b² is such that at v = 1 a change B A₀ has the mean
    square of W. B is zero at the prior mean: zero-shot CLIP with the task's first template, whose logits move
    with B. logits = s F Tᵀ of unit image features F and class features T.

    Takes preprocessed pixels (N, 3 h w). The authors adapt every attention layer; here it is the last one of
    each encoder (the attention pool, where the image encoder ends in one), so that few weights have to be
    tracked and only the last layer is differentiated.
    """

    takes = "pixels"
    uses_encoder = True
    widest_prior = 1.0
    recipe = Recipe(
        source="CLIP-LoRA (Zanella & Ben Ayed, CVPR-W 2024; MaxZanella/CLIP-LoRA)",
        optimizer="adamw",
        learning_rate=2e-4,
        weight_decay=1e-2,
        steps_per_shot=500,
        batch_size=32,
        cosine_by="step",
        final_rate=1e-6,
        augmentation=True,
        deviations=(
            "the last attention layer of each encoder, not all of them",
            "no dropout of 0.25 in front of the low-rank maps",
            "the backbone's own logit scale, not 100",
        ),
    )

    def __init__(self, context: Context, prior_variance: float) -> None:
        super().__init__(context, prior_variance)
        self.prompts = task_prompts(context, learned=False)
        assert context.encoder is not None
        like = context.text_features
        self.image_tower = image_tower(context.encoder, like.dtype, like.device)
        text = self.prompts.tower.blocks[-1].weights["attn.in_proj_weight"]
        self.maps = {"image": self.image_tower.maps, "text": text.unflatten(0, (3, -1))}

    @property
    def numbers_per_class(self) -> int:
        return self.prompts.numbers

    def prior(self) -> dict[str, Normal]:
        sites = {}
        generator = torch.Generator().manual_seed(0)
        for tower, maps in self.maps.items():
            columns = maps.shape[-1]
            down = 2 * torch.rand(3, RANK, columns, generator=generator, dtype=torch.float64) - 1
            down = (down / columns**0.5).to(maps)
            own = down.square().mean()
            size = (RANK / ALPHA) * (maps.square().mean() / (RANK * own)) ** 0.5
            width = self.prior_variance**0.5
            sites[f"{tower}_down"] = Normal(down, width * own**0.5).to_event(3)
            sites[f"{tower}_up"] = Normal(maps.new_zeros(3, maps.shape[1], RANK), width * size).to_event(3)
        return sites

    def features_of(self, weights: dict[str, Tensor], classes: Tensor) -> Tensor:
        tower, pool = self.prompts.tower, self.prompts.pool[classes]
        last = len(tower.blocks) - 1
        changes = {last: self._change(weights, "text")}
        states = tower.hidden(self.prompts.before_last[classes], first=last, changes=changes)
        return normalize(tower.pooled(states, pool), dim=-1)

    def image_states(self, inputs: Tensor) -> Tensor:
        return self.image_tower.states(inputs)

    def image_features(self, weights: dict[str, Tensor], states: Tensor) -> Tensor:
        return self.image_tower.encode(states, self._change(weights, "image"))

    def _change(self, weights: dict[str, Tensor], tower: str) -> LowRankChange:
        return LowRankChange(weights[f"{tower}_down"], ALPHA / RANK * weights[f"{tower}_up"])
