"""A user's own program for retrieval: a linear map of image features, shared by whatever texts there are."""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro.distributions import Normal
from torch import Tensor

from bayes_clip.model import AdapterModel


class ImageMap(AdapterModel):
    """M ~ N(0, v I); logits = s (x + B M Bᵀ x)ᵀ t for images x and texts t, unit rows; zero-shot at M = 0.

    B (D, R): orthonormal `directions` in which images may move, M (R, R). The classes are the texts of a
    gallery, and no weight belongs to one of them, so that the map serves any other gallery. Logits are linear
    in M; what is mapped is not scaled back to unit length. D directions: any linear map. One name for the
    family of BayesVLM's last layer and of ProLIP's, after the projection instead of in it.
    """

    directions: ClassVar[Tensor]

    def prior(self) -> dict[str, Normal]:
        still = self.text_features.new_zeros(self.directions.shape[1], self.directions.shape[1])
        return {"map": Normal(still, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        directions = self.directions.to(self.text_features)
        moved = inputs @ directions @ weights["map"].mT @ (self.text_features @ directions).mT
        return self.logit_scale * (inputs @ self.text_features.mT + moved)


def image_map(features: Tensor, count: int) -> type[AdapterModel]:
    """The program that moves images in the `count` leading directions of `features` (N, D), uncentred."""
    directions = torch.linalg.svd(features.double(), full_matrices=False).Vh[:count].mT
    return type("ImageMap", (ImageMap,), {"directions": directions.contiguous()})
