"""Preprocessed pictures through an image encoder, batch by batch, without waiting where a GPU need not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.errors import UserError

BATCHES_PER_COPY = 32  # features wait on the device so long: each copy has the host wait for it
HALF = torch.float16  # of autocast: ten bits of mantissa, where bfloat16 has seven


@dataclass(frozen=True)
class ImageEncoder:
    """What pictures go through: from pixels (n, 3, h, w) to features (n, D)."""

    name: str
    encode: Callable[[Tensor], Tensor]
    size: tuple[int, int]  # height and width of the pixels
    device: torch.device
    half: bool  # whether it runs in float16 by autocast; features leave it in float32 all the same

    def __call__(self, pixels: Iterable[Tensor], batch_size: int) -> list[Tensor]:
        """Features of preprocessed pictures (3, h, w), in order: parts (n, D), float32 on the CPU.

        Raises:
            UserError: pixels of another size; features that are NaN or infinite.
        """
        done: list[Tensor] = []
        waiting: list[Tensor] = []
        batch: list[Tensor] = []
        for index, picture in enumerate(pixels):
            self._check_size(picture, index)
            batch.append(picture)
            if len(batch) == batch_size:
                waiting.append(self._batch(batch))
                batch = []
            if len(waiting) == BATCHES_PER_COPY:
                done.append(self._copied(waiting, sum(map(len, done))))
                waiting = []
        if batch:
            waiting.append(self._batch(batch))
        if waiting:
            done.append(self._copied(waiting, sum(map(len, done))))
        return done

    def _batch(self, batch: list[Tensor]) -> Tensor:
        if self.device.type == "cuda" and not batch[0].is_cuda:
            # what is stacked in pinned memory is copied while this thread stacks the next batch
            pinned = torch.empty(len(batch), *batch[0].shape, dtype=batch[0].dtype, pin_memory=True)
            pixels = torch.stack(batch, out=pinned).to(self.device, non_blocking=True)
        else:
            pixels = torch.stack(batch).to(self.device)
        # channels last: convolutions read the channels of a pixel together
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, HALF, enabled=self.half):
            return self.encode(pixels).float()

    def _copied(self, waiting: list[Tensor], before: int) -> Tensor:
        features = torch.cat(waiting).cpu()
        check_features(features, f"picture {{}}: its features on {self.name}", self.half, before)
        return features

    def _check_size(self, pixels: Tensor, index: int) -> None:
        wanted = (3, *self.size)
        if pixels.shape != wanted:
            raise UserError(
                f"picture {index}: pixels {tuple(pixels.shape)}, and {self.name} takes {wanted} of what is "
                "preprocessed already; give pictures, or uint8 tensors (3, h, w)"
            )


def check_features(features: Tensor, what: str, half: bool, before: int = 0) -> None:
    """Refuse features (n, D) that are NaN or infinite; `what` has ``{}`` for the row, counted from `before`.

    Raises:
        UserError: names the row, and how to encode without overflow.
    """
    bad = ~features.isfinite().all(dim=1)
    if not bool(bad.any()):
        return
    row = before + int(bad.int().argmax())
    remedy = (
        "they overflow in float16; encode in full precision with --precision float32"
        if half
        else "its weights are too large or broken; take other weights with --pretrained"
    )
    raise UserError(f"{what.format(row)} are NaN or infinite: {remedy}")
