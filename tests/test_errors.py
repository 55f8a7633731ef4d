from __future__ import annotations

from bayes_clip.errors import nearest

ENGINES = ("zero_shot", "map", "ekf", "laplace")


def test_nearest_names_the_likely_one_whatever_its_case() -> None:
    assert nearest("laplase", ENGINES) == " Did you mean 'laplace'?"
    assert nearest("vit-b-32", ["RN50", "ViT-B-32"]) == " Did you mean 'ViT-B-32'?"


def test_nearest_is_silent_when_nothing_is_close() -> None:
    assert nearest("transformer", ENGINES) == ""
    assert nearest("ekf", []) == ""
