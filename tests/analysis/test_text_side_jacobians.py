"""The study of text-side Jacobians compares two ways to the same numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from small_problems import assert_near
from tiny_clip import tiny_backbone

sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))

import text_side_jacobians as study


def test_both_ways_give_the_same_jacobian_and_are_timed() -> None:
    backbone = tiny_backbone()
    mean, both = study.ways(backbone, 3)
    inputs = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    once, naive = (way(mean, inputs) for way in both.values())
    assert once.shape == (5, 3, 64)
    assert_near(once, naive, 1e-4)  # float32
    table = study.study([backbone], [1, 5], 3)
    assert len(table) == 4 and (table["seconds"] > 0).all()
    assert study.summary(table).count("\n") == 3
    assert len(study.figure(table).axes) == 1
