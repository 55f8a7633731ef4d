"""A frozen encoder of pictures and prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.backbone import pocket
from bayes_clip.backbone.batched import HALF, ImageEncoder, check_features
from bayes_clip.backbone.factory import Parts, create
from bayes_clip.backbone.fingerprint import fingerprint
from bayes_clip.backbone.lora import is_adapter
from bayes_clip.backbone.prefetch import ahead, workers_for
from bayes_clip.backbone.templates import DEFAULT_TEMPLATES, fill
from bayes_clip.errors import UserError
from bayes_clip.progress import track

IMAGE_BATCH = 64
TEXT_BATCH = 256
PRECISIONS = ("auto", "float32")
MOST_ELONGATED = 8  # sides longer than 8 times the other are cut to their middle before resizing

Picture = Image.Image | Tensor  # RGB, or (3, h, w) uint8; (3, h, w) floating point: preprocessed already


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
    half: bool = False  # pictures are encoded in float16 by autocast
    asked: str = ""  # the name it was asked for by, from which it can be loaded again; empty: `name`

    def __repr__(self) -> str:
        weights = f" {self.pretrained}" if self.pretrained else ""
        return (
            f"Backbone({self.name}{weights}: {self.feature_dim} features, logit scale "
            f"{self.logit_scale:.4g}, {self.device}, {self.fingerprint})"
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its preprocessed pictures."""
        size = self.preprocessing["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def precision(self) -> str:
        """What pictures are encoded in: ``float32``, or ``float16`` by autocast.

        Weights and features are float32 in either case, and so are texts; features of one picture in both
        differ by rounding.
        """
        return str(HALF if self.half else torch.float32).removeprefix("torch.")

    def prepare(self, picture: Picture) -> Tensor:
        """The pixels (3, h, w) that the model sees; what is floating point already is returned as it is."""
        if isinstance(picture, Tensor) and picture.is_floating_point():
            return picture
        return self.preprocess(self._sized(_as_picture(picture)))

    def encode_images(
        self,
        images: Iterable[Picture],
        batch_size: int = IMAGE_BATCH,
        description: str = "encoding pictures",
        total: int | None = None,
    ) -> Tensor:
        """Encode pictures, taken one by one, in order: (N, D) float32 on the CPU, not normalised.

        Threads prepare them a few ahead. A floating-point tensor (N, 3, h, w) goes to `encode_pixels`.
        """
        if isinstance(images, Tensor) and images.is_floating_point():
            return self.encode_pixels(images, batch_size, description, total)
        if total is None and isinstance(images, Sized):
            total = len(images)
        with ahead(self.prepare, images, workers_for(self.device)) as pixels:
            return self.encode_pixels(pixels, batch_size, description, total)

    @torch.inference_mode()
    def encode_pixels(
        self,
        pixels: Iterable[Tensor],
        batch_size: int = IMAGE_BATCH,
        description: str = "encoding pictures",
        total: int | None = None,
    ) -> Tensor:
        """Encode preprocessed pictures (3, h, w), in order: (N, D) float32 on the CPU, not normalised.

        On a GPU: from pinned memory, in float16 where autocast says so, and without waiting for a batch
        before the next one is sent.

        Raises:
            UserError: pixels of another size than the model's; features that are NaN or infinite.
        """
        encoder = ImageEncoder(
            self.name,
            partial(self.model.encode_image, normalize=False),
            self.image_size,
            torch.device(self.device),
            self.half,
        )
        done = encoder(track(pixels, description, total), batch_size)
        return torch.cat(done) if done else torch.empty(0, self.feature_dim)

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
        if not features:
            return torch.empty(0, self.feature_dim)
        encoded = torch.cat(features).float().cpu()
        check_features(encoded, f"prompt {{}}: its text features on {self.name}", half=False)
        return encoded

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

    def _sized(self, image: Image.Image) -> Image.Image:
        # where the middle is cropped out anyway, a hair-thin picture must not be blown up first
        return middle_part(image) if self.preprocessing.get("resize_mode") == "shortest" else image


def load_backbone(
    name: str = pocket.NAME, pretrained: str | None = None, device: str = "cpu", precision: str = "auto"
) -> Backbone:
    """Load a backbone: ``pocket_clip``, which is embedded, or any open_clip model.

    `name` is an open_clip architecture (``ViT-B-32``), a JSON config file of one, a folder with
    ``open_clip_config.json`` and weights, or ``hf-hub:org/model``. `pretrained` is an open_clip tag or a
    checkpoint file (a fine-tuned one too), with ``+FOLDER`` for a LoRA adapter of PEFT that is merged into
    it; of a model that brings its weights, ``pocket_clip`` too, the adapter's folder alone. `precision` is
    ``auto`` (pictures in float16 by autocast on a GPU, float32 on a CPU) or ``float32``.

    Raises:
        UserError: unknown architecture, tag, file, device or precision; a failed download; weights that do
            not fit.
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision}: give {' or '.join(PRECISIONS)}")
    if name == pocket.NAME:
        backbone = _load_pocket(pretrained, device)
    else:
        backbone = _backbone(create(name, pretrained, device), device)
    return replace(backbone, half=precision == "auto" and torch.device(device).type == "cuda")


def middle_part(image: Image.Image) -> Image.Image:
    """The middle of a picture whose long side is more than eight times its short one; else all of it."""
    width, height = image.size
    longest = MOST_ELONGATED * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
    return image.crop((left, top, width - left, height - top))


def _load_pocket(adapter: str | None, device: str) -> Backbone:
    if adapter is not None and not is_adapter(Path(adapter.removeprefix("+"))):
        raise UserError(
            f"--pretrained {adapter}: pocket_clip has its own weights; leave it out, or give a LoRA folder"
        )
    folder = pocket.pocket_folder()
    weights = str(pocket.weights_file(folder)) + ("" if adapter is None else f"+{adapter.removeprefix('+')}")
    parts = create(str(pocket.config_file(folder)), weights, device, pocket.preprocessing(folder))
    asked = None if parts.pretrained is None or adapter is None else "+" + parts.pretrained.rpartition("+")[2]
    return replace(
        _backbone(parts, device),
        pretrained=asked,
        default_templates=pocket.default_templates(folder) or DEFAULT_TEMPLATES,
        vocabulary=pocket.vocabulary(folder),
        asked=pocket.NAME,
    )


def _backbone(parts: Parts, device: str) -> Backbone:
    with torch.inference_mode():
        dimension = parts.model.encode_text(parts.tokenize([""]).to(device)).shape[-1]
    return Backbone(
        name=parts.name,
        pretrained=parts.pretrained,
        fingerprint=fingerprint(parts.identity, parts.model.state_dict(), parts.preprocessing),
        logit_scale=float(parts.model.logit_scale.detach().exp()),
        feature_dim=dimension,
        default_templates=DEFAULT_TEMPLATES,
        vocabulary=None,
        device=device,
        model=parts.model.to(memory_format=torch.channels_last),
        preprocess=parts.preprocess,
        preprocessing=parts.preprocessing,
        tokenize=parts.tokenize,
        asked=parts.asked,
    )


def _as_picture(image: Picture) -> Image.Image:
    if isinstance(image, Tensor):
        return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    return image
