"""The study of retrieval: every arm ranks a gallery it did not learn; nothing is chosen on it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import bayes_clip as bc


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))  # as python analysis/x.py does
    module = importlib.import_module("retrieval")
    for name, value in {
        "ENGINES": ("map", "laplace"),
        "DRAWS": 8,
        "DIRECTIONS": 4,
        "WIDER": (0.3, 1.0),
    }.items():
        monkeypatch.setattr(module, name, value)
    return module


def pairs_of(study: ModuleType, count: int) -> object:
    """Texts, and images that are the same texts turned and noisy: a linear map finds them."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=-1)
    noisy = texts.roll(1, dims=1) + 0.1 * torch.randn(count, 6, generator=generator)
    images = torch.nn.functional.normalize(noisy, dim=-1)
    return study.Pairs(images, texts, tuple(f"caption {row}" for row in range(count)))


def test_a_map_that_there_is_is_found_and_doubt_brings_what_is_stated_down(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "DIRECTIONS", 6)
    every = pairs_of(study, 60)
    known, gallery = every.part(torch.arange(20)), every.part(torch.arange(20, 60))
    found = {arm: rankings["image to text"] for arm, _, _, rankings in study.arms(known, gallery, 20.0)}
    assert tuple(found) == ("zero_shot", "map", "laplace mean", "laplace")
    assert found["map"].recall(5) > found["zero_shot"].recall(5) + 0.3
    assert found["laplace"].stated(5).mean() <= found["laplace mean"].stated(5).mean()
    assert np.allclose(found["map"].probabilities, found["laplace mean"].probabilities, atol=0.05)


def test_the_choice_does_not_see_the_gallery(study: ModuleType) -> None:
    every = pairs_of(study, 40)
    known = every.part(torch.arange(12))
    kind = study.image_map(torch.cat([known.images, known.texts]), 4)
    variance, scales = study.chosen(known, 20.0, kind, "laplace")
    default = study.fitted(known, 20.0, kind, "laplace", None).posterior.source.prior_variance
    assert any(variance == pytest.approx(default * factor) for factor in study.WIDER)
    assert scales["laplace mean"] == 0.0 and scales["laplace"] in study.SCALES


def test_pictures_captions_and_tables(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "WIDER", (1.0,))
    monkeypatch.setattr(study, "SHIFTS", {"turned": study.SHIFTS["turned"]})
    table, stated = study.study(bc.load_backbone(), [6], [0, 1], gallery=10)
    assert len(table) == 2 * 2 * 4 and len(stated) == 10 * len(table)
    assert table["recall_1"].between(0, 1).all() and (table["recall_1"] <= table["recall_5"]).all()
    points = table["arm"].isin(["zero_shot", "map", "laplace mean"])
    assert np.allclose(table["recall_5"][points], table["expected_5"][points])
    assert "laplace mean" in study.summary(table)
    study.draw(table, study.binned(stated))
