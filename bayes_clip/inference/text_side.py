"""Logits and Jacobians of programs that work inside an encoder: logits = s F(w) T(w)ᵀ.

T, the class features, is the same for all images. Its derivative is taken once for each class and batch, by
vector-Jacobian products with the directions that the batch needs: the image features of its b rows, or the D
axes where there are more rows than those. Row by row it would be taken once for each image and class. F, the
image features, is differentiated once for each image, along the class features. Both are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vjp, vmap

from bayes_clip.model import AdapterModel, TextSideModel, TwoTowerModel

BYTES_PER_CHUNK = 2**28  # of what derivatives leave behind at once
IMAGES_PER_CHUNK = 64

Values = Callable[[Tensor], dict[str, Tensor]]  # flat weights (..., P) -> the values of the sites


class Remembered:
    """A function of one tensor that remembers its last value: it is asked for at the same one again.

    Under torch.func, or where gradients are followed, it is simply called.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, given: Tensor) -> Tensor:
        if given.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(given):
            return self._function(given)
        if self._last is None or not torch.equal(self._last[0], given):
            self._last = given.clone(), self._function(given)
        return self._last[1]


@dataclass(frozen=True)
class TwoTowers:
    """Logits of a two-tower program as a function of its flat weights (P,), and their Jacobian."""

    model: TwoTowerModel
    values: Values
    features: Remembered  # flat weights -> class features (C, D)
    states: Remembered  # inputs (N, F) -> what the frozen part of the image encoder makes of them

    def logits(self, flat: Tensor, inputs: Tensor) -> Tensor:
        """(N, C), the class features taken once for each set of weights."""
        images = self.model.image_features(self.values(flat), self.states(inputs))
        return self.model.logit_scale * images @ self.features(flat).mT

    def jacobian(self, flat: Tensor, inputs: Tensor) -> Tensor:
        """∂ logits / ∂ weights (N, C, P)."""
        states = self.states(inputs)
        slopes = self._text_slopes(flat, self.model.image_features(self.values(flat), states))
        if not isinstance(self.model, TextSideModel):
            slopes = slopes + self._image_slopes(flat, states)
        return self.model.logit_scale * slopes

    def _text_slopes(self, flat: Tensor, images: Tensor) -> Tensor:
        """xₙ · ∂T_c / ∂w for unit image features (N, D): (N, C, P)."""
        rows, features = images.shape
        if rows <= features:
            return self._along(flat, images).transpose(0, 1)
        axes = torch.eye(features).to(images)
        return torch.einsum("nd,cdp->ncp", images, self._along(flat, axes))

    def _along(self, flat: Tensor, directions: Tensor) -> Tensor:
        """directions (m, D) · ∂T_c / ∂w: (C, m, P). Each class goes through the encoder once."""
        numbers = (len(flat) + self.model.numbers_per_class) * flat.element_size()
        pairs = max(1, BYTES_PER_CHUNK // numbers)

        def one(number: Tensor) -> Tensor:
            pull = vjp(lambda at: self.model.features_of(self.values(at), number[None])[0], flat)[1]
            return vmap(lambda direction: pull(direction)[0], chunk_size=pairs)(directions)

        classes = torch.arange(len(self.model.class_names), device=flat.device)
        return vmap(one, chunk_size=max(1, pairs // len(directions)))(classes)

    def _image_slopes(self, flat: Tensor, states: Tensor) -> Tensor:
        """t_c · ∂F_n / ∂w for image states (N, ...): (N, C, P). Each image goes through the encoder once."""
        texts = self.features(flat)
        rows = max(1, BYTES_PER_CHUNK // (len(texts) * flat.numel() * flat.element_size()))

        def one(row: Tensor) -> Tensor:
            pull = vjp(lambda at: self.model.image_features(self.values(at), row[None])[0], flat)[1]
            return vmap(lambda direction: pull(direction)[0])(texts)

        return vmap(one, chunk_size=min(rows, IMAGES_PER_CHUNK))(states)


def two_towers(model: object, values: Values) -> TwoTowers | None:
    """The towers of a program that has two and takes logits and likelihood as they come; else None."""
    if not isinstance(model, TwoTowerModel):
        return None
    own = type(model).logits is TwoTowerModel.logits and type(model).__call__ is AdapterModel.__call__
    if not own:
        return None
    features = Remembered(lambda flat: model.class_features(values(flat)))
    return TwoTowers(model, values, features, Remembered(model.image_states))
