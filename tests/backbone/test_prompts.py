"""Prompts give open_clip's own features, and the right words are learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_problems import assert_near
from tiny_clip import tiny_backbone
from torch.nn.functional import normalize

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.backbone.prompts import Prompts, class_prompts
from bayes_clip.backbone.text_tower import text_tower
from bayes_clip.errors import UserError

NAMES = ("zero", "a green two", "square")
TOWERS: list[dict[str, Any]] = [
    {},
    {"custom": True},
    {"custom": True, "pool_type": "last", "no_causal_mask": True, "proj_bias": True},
    {"pool_type": "eos", "eos_id": 49407, "ls_init_value": 0.1},
    {"pool_type": "first", "no_causal_mask": True},
]


def told(backbone: Backbone, template: str) -> torch.Tensor:
    """Unit features (C, D) by open_clip's own encoder."""
    tokens = backbone.tokenize([template.replace("{}", name) for name in NAMES])
    return normalize(backbone.model.encode_text(tokens), dim=-1)


def said(prompts: Prompts) -> torch.Tensor:
    return prompts.encode(prompts.contexts, torch.arange(len(NAMES)))


def of(backbone: Backbone, template: str, dtype: torch.dtype = torch.float32) -> Prompts:
    return class_prompts(backbone, NAMES, template, dtype, "cpu")


@pytest.mark.parametrize("options", TOWERS, ids=str)
@pytest.mark.parametrize("template", ["a photo of a {}.", "{} texture.", "{}"])
def test_every_tower_says_what_open_clip_says(options: dict[str, Any], template: str) -> None:
    backbone = tiny_backbone(**options)
    assert_near(said(of(backbone, template)), told(backbone, template), 1e-6)
    backbone.model.double()
    assert_near(said(of(backbone, template, torch.float64)), told(backbone, template), 1e-12)


def test_pocket_clip_says_what_open_clip_says() -> None:
    backbone = load_backbone()
    for template in backbone.default_templates:
        assert_near(said(of(backbone, template)), told(backbone, template), 1e-6)


def test_the_words_in_front_of_the_class_name_are_learned_else_those_behind_it() -> None:
    backbone = tiny_backbone()
    table = backbone.model.token_embedding.weight

    def words(text: str) -> torch.Tensor:
        numbers = backbone.tokenize([text])[0]
        return table[numbers[1 : int(numbers.argmax())]]

    assert_near(of(backbone, "a photo of a {}.").contexts, words("a photo of a"))
    assert_near(of(backbone, "{} texture.").contexts, words("texture."))
    assert of(backbone, "{}").contexts.shape == (0, 16)
    prompts = of(backbone, "a photo of a {}, a type of pet.")
    for index, name in enumerate(NAMES):
        assert_near(prompts.names[index][prompts.is_name[index]], words(name))


def test_prompts_are_as_long_as_the_longest_where_the_tower_looks_back_only() -> None:
    assert of(tiny_backbone(), "a {}").fixed.shape[1] == 1 + 1 + 3 + 1
    assert of(tiny_backbone(no_causal_mask=True), "a {}").fixed.shape[1] == 77


def test_leading_dimensions_of_contexts_are_samples() -> None:
    prompts = of(tiny_backbone(), "a photo of a {}.", torch.float64)
    noise = torch.randn(5, 2, 1, 4, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    classes = torch.tensor([2, 0])
    together = prompts.encode(prompts.contexts + noise, classes)
    assert together.shape == (5, 2, 2, 8)
    assert_near(together[3, 1], prompts.encode(prompts.contexts + noise[3, 1], classes))


def test_what_is_fixed_is_made_once_and_goes_with_the_backbone() -> None:
    backbone = tiny_backbone()
    assert of(backbone, "a {}") is of(backbone, "a {}")
    assert of(backbone, "a {}") is not of(backbone, "the {}")


def test_other_text_encoders_and_prompts_that_were_cut_are_refused() -> None:
    with pytest.raises(UserError, match="tiny: its text encoder is no plain open_clip transformer"):
        text_tower(tiny_backbone(custom=True, embed_cls=True), torch.float32, "cpu")
    with pytest.raises(UserError, match="takes 77 tokens, and may have cut it; give a shorter template"):
        of(tiny_backbone(), "a " * 80 + "{}")
