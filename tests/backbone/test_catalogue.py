from __future__ import annotations

import open_clip
import pytest

from bayes_clip.backbone import catalogue
from bayes_clip.backbone.catalogue import count_parameters, list_backbones
from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.errors import UserError


def test_everything_is_offered_and_pocket_clip_first() -> None:
    offers = list_backbones()
    assert offers[0].name == "pocket_clip"
    assert [offer.name for offer in offers[1:]] == [
        name for name in open_clip.list_models() if name != "pocket_clip"
    ]


def test_a_word_filters_by_name_and_by_tag() -> None:
    assert {"ViT-B-32", "ViT-B-32-quickgelu"} <= {offer.name for offer in list_backbones("vit-b-32")}
    assert all("metaclip_400m" in offer.tags for offer in list_backbones("metaclip_400m"))
    with pytest.raises(UserError, match=r"ViT-B-33: no name or tag.*Did you mean 'ViT-B-32'"):
        list_backbones("ViT-B-33")


def test_sizes_are_those_of_the_models() -> None:
    (pocket,) = list_backbones("pocket")
    backbone = load_backbone()
    counted = sum(parameter.numel() for parameter in backbone.model.parameters())
    assert (pocket.image_size, pocket.feature_dim) == ("32", backbone.feature_dim)
    assert pocket.parameters == counted / 1e6
    by_name = {offer.name: offer for offer in list_backbones("openai")}
    assert (by_name["ViT-B-32"].image_size, by_name["ViT-B-32"].feature_dim) == ("224", 512)
    assert by_name["ViT-B-32"].parameters == pytest.approx(151.277313)  # as published
    for name in ("ViT-B-32", "RN50"):
        assert count_parameters(name) == by_name[name].parameters * 1e6


def test_counts_of_another_config_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "digest", lambda config: "00000000")
    assert {offer.parameters for offer in list_backbones("openai") if offer.name != "pocket_clip"} == {None}
    monkeypatch.setattr(catalogue, "count_parameters", lambda name: 3_000_000)
    assert {offer.parameters for offer in list_backbones("ViT-B-32-plus")} == {3.0}
