"""The page on other heads: its snippets run in order, and say what the page says of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_problems import EXACT, assert_near

PAGE = Path(__file__).parents[2] / "analysis" / "other_heads.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, namespace)
    return namespace


def test_regression_is_the_closed_form_under_every_engine(page: dict[str, Any]) -> None:
    images, values = page["images"], page["values"]
    precision = torch.eye(6).double() + images.mT @ images / 0.01
    mean = torch.linalg.solve(precision, images.mT @ values / 0.01).mT
    covariance = torch.block_diag(*[torch.linalg.inv(precision)] * 2)
    for engine in ("ekf", "laplace"):
        assert_near(page["found"][engine].mean.reshape(2, 6), mean, EXACT if engine == "ekf" else 1e-5)
        assert_near(page["found"][engine].covariance.reshape(12, 12), covariance, EXACT)
    assert_near(page["found"]["map"].mean.reshape(2, 6), mean, 1e-5)  # by L-BFGS


def test_tags_are_learned_independently(page: dict[str, Any]) -> None:
    right = (page["chances"] > 0.5) == page["present"].bool()
    assert right.double().mean() > 0.9
    assert len(page["infos"]) == 5


def test_grades_are_probabilities_in_order(page: dict[str, Any]) -> None:
    probabilities = page["prediction"].probabilities
    assert probabilities.shape == (10, 4)
    expected = probabilities @ torch.arange(4.0).double()
    truth = page["grade"][30:].double()
    assert torch.corrcoef(torch.stack([expected, truth]))[0, 1] > 0.7


def test_the_gallery_is_ranked_better_than_untrained(page: dict[str, Any]) -> None:
    zero_shot = 20 * page["images"][20:] @ page["captions"][20:].mT
    before = page["ranking"]([zero_shot.numpy()], torch.eye(20), tops=(5,))
    assert page["ranked"].recall(5) > before.recall(5)
    assert page["ranked"].stated(5).shape == (20,)


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert links and all((PAGE.parent / link).exists() for link in links)
