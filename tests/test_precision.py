from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from small_problems import tiny_task

from bayes_clip.fitting import fit
from bayes_clip.gaussian import class_block
from bayes_clip.precision import full_precision
from bayes_clip.settings import FitSettings
from bayes_clip.streaming import update


@pytest.fixture
def careless() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("careless")
def test_the_callers_setting_is_put_aside_and_comes_back_after_an_error_too() -> None:
    with pytest.raises(ValueError), full_precision():
        assert torch.get_float32_matmul_precision() == "highest"
        raise ValueError
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.usefixtures("careless")
def test_nothing_is_fitted_updated_or_predicted_in_reduced_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    visit, moments = class_block.visit, class_block.ClassBlock.logit_moments

    def watching(*arguments: object) -> object:
        seen.append(torch.get_float32_matmul_precision())
        return visit(*arguments)

    def watched(*arguments: object) -> object:
        seen.append(torch.get_float32_matmul_precision())
        return moments(*arguments)

    monkeypatch.setattr(class_block, "visit", watching)
    monkeypatch.setattr(class_block.ClassBlock, "logit_moments", watched)
    task = tiny_task()
    posterior = fit(task, FitSettings(prior_variance=0.01)).posterior
    update(posterior, task).posterior.predict(task.query_features)
    assert len(seen) > 3 and set(seen) == {"highest"}
    assert torch.get_float32_matmul_precision() == "medium"
