"""A frozen encoder of pictures and prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.backbone import pocket
from bayes_clip.backbone.factory import Parts, create
from bayes_clip.backbone.fingerprint import fingerprint
from bayes_clip.backbone.templates import DEFAULT_TEMPLATES, fill
from bayes_clip.errors import UserError
from bayes_clip.progress import track

IMAGE_BATCH = 64
TEXT_BATCH = 256
MOST_ELONGATED = 8  # sides longer than 8 times the other are cut to their middle before resizing

Picture = Image.Image | Tensor  # RGB, or (3, h, w) uint8


@dataclass(frozen=True, eq=False, repr=False)
class Backbone:
    """An open_clip model with its own preprocessing and tokenizer; build one with `load_backbone`."""

    name: str
    pretrained: str | None
    fingerprint: str  # of weights, preprocessing and name
    logit_scale: float  # s, about 100 for CLIP
    feature_dim: int  # D
    default_templates: tuple[str, ...]
    vocabulary: frozenset[str] | None  # the words it knows; None: any
    device: str
    model: Any  # open_clip.CLIP or a kindred class
    preprocess: Callable[[Any], Tensor]
    preprocessing: dict[str, Any]
    tokenize: Callable[[list[str]], Tensor]

    def __repr__(self) -> str:
        weights = f" {self.pretrained}" if self.pretrained else ""
        return (
            f"Backbone({self.name}{weights}: {self.feature_dim} features, logit scale "
            f"{self.logit_scale:.4g}, {self.device}, {self.fingerprint})"
        )

    @torch.inference_mode()
    def encode_images(
        self,
        images: Iterable[Picture],
        batch_size: int = IMAGE_BATCH,
        description: str = "encoding pictures",
        total: int | None = None,
    ) -> Tensor:
        """Encode pictures, taken one by one, in order: (N, D) float32 on the CPU, not normalised."""
        features: list[Tensor] = []
        batch: list[Tensor] = []
        for image in track(images, description, total):
            batch.append(self.preprocess(self._sized(_as_picture(image))))
            if len(batch) == batch_size:
                features.append(self._encode_batch(batch))
                batch = []
        if batch:
            features.append(self._encode_batch(batch))
        return torch.cat(features) if features else torch.empty(0, self.feature_dim)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode prompts: (len(texts), D) float32 on the CPU, not normalised.

        Warns of words that the backbone never saw in training, where it knows which it saw.
        """
        unknown = self.unknown_words(texts)
        if unknown:
            listed = ", ".join(f"'{word}'" for word in unknown[:5])
            message = (
                f"{self.name} never saw {listed} in training, so prompts with such words mean little to it"
            )
            warnings.warn(message, stacklevel=2)
        features = [
            self.model.encode_text(
                self.tokenize(list(texts[i : i + TEXT_BATCH])).to(self.device), normalize=False
            )
            for i in range(0, len(texts), TEXT_BATCH)
        ]
        return torch.cat(features).float().cpu() if features else torch.empty(0, self.feature_dim)

    def text_features(self, class_names: Sequence[str], templates: Sequence[str] | None = None) -> Tensor:
        """Unit text features of classes (C, D): normalised prompt features, averaged over the templates.

        `templates` are the backbone's own unless given; each holds ``{}`` for the class name.
        """
        templates = templates or self.default_templates
        prompts = [prompt for name in class_names for prompt in fill(templates, name)]
        features = normalize(self.encode_texts(prompts).double(), dim=-1)
        means = features.reshape(len(class_names), len(templates), -1).mean(dim=1)
        return normalize(means, dim=-1).float()

    def unknown_words(self, prompts: Iterable[str]) -> list[str]:
        """Words of `prompts` that the backbone never saw, each once; none where it does not say."""
        return [] if self.vocabulary is None else pocket.unknown_words(prompts, self.vocabulary)

    def _encode_batch(self, batch: list[Tensor]) -> Tensor:
        # channels last: convolutions read the channels of a pixel together
        pixels = torch.stack(batch).to(self.device, memory_format=torch.channels_last)
        return self.model.encode_image(pixels, normalize=False).float().cpu()

    def _sized(self, image: Image.Image) -> Image.Image:
        # where the middle is cropped out anyway, a hair-thin picture must not be blown up first
        return middle_part(image) if self.preprocessing.get("resize_mode") == "shortest" else image


def load_backbone(name: str = pocket.NAME, pretrained: str | None = None, device: str = "cpu") -> Backbone:
    """Load a backbone: ``pocket_clip``, which is embedded, or any open_clip model.

    `name` is an open_clip architecture (``ViT-B-32``), a JSON config file of one, ``hf-hub:org/model`` or
    ``local-dir:folder``; `pretrained` is an open_clip tag or a checkpoint file.

    Raises:
        UserError: unknown architecture, tag, file or device; a failed download; weights that do not fit.
    """
    if name == pocket.NAME:
        if pretrained is not None:
            raise UserError(f"--pretrained {pretrained}: pocket_clip has its own weights; leave it out")
        return _load_pocket(device)
    return _backbone(create(name, pretrained, device), pretrained, device)


def middle_part(image: Image.Image) -> Image.Image:
    """The middle of a picture whose long side is more than eight times its short one; else all of it."""
    width, height = image.size
    longest = MOST_ELONGATED * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
    return image.crop((left, top, width - left, height - top))


def _load_pocket(device: str) -> Backbone:
    folder = pocket.pocket_folder()
    files = str(pocket.config_file(folder)), str(pocket.weights_file(folder))
    parts = create(*files, device, pocket.preprocessing(folder))
    backbone = _backbone(parts, None, device)
    templates = pocket.default_templates(folder) or DEFAULT_TEMPLATES
    return replace(backbone, default_templates=templates, vocabulary=pocket.vocabulary(folder))


def _backbone(parts: Parts, pretrained: str | None, device: str) -> Backbone:
    with torch.inference_mode():
        dimension = parts.model.encode_text(parts.tokenize([""]).to(device)).shape[-1]
    return Backbone(
        name=parts.name,
        pretrained=pretrained,
        fingerprint=fingerprint(parts.name, parts.model.state_dict(), parts.preprocessing),
        logit_scale=float(parts.model.logit_scale.detach().exp()),
        feature_dim=dimension,
        default_templates=DEFAULT_TEMPLATES,
        vocabulary=None,
        device=device,
        model=parts.model,
        preprocess=parts.preprocess,
        preprocessing=parts.preprocessing,
        tokenize=parts.tokenize,
    )


def _as_picture(image: Picture) -> Image.Image:
    if isinstance(image, Tensor):
        return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    return image
