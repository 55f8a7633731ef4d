"""The four reports as the package writes them, from small made-up features, and a browser to look at them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bayes_clip.data.task import Task, make_task
from bayes_clip.evaluation.checking import check
from bayes_clip.evaluation.comparison import compare
from bayes_clip.evaluation.holdout import hold_out
from bayes_clip.evaluation.results import Comparison
from bayes_clip.evaluation.scoring import score_posterior
from bayes_clip.fitting import fit
from bayes_clip.report.check_write import write_check
from bayes_clip.report.fit_write import write_fit
from bayes_clip.report.write import write_comparison
from bayes_clip.settings import FitSettings

sys.path.insert(0, str(Path(__file__).parent))

from chromium import Chromium, find_chromium

CLASSES, WIDTH = 3, 8


def made_up(name: str) -> Task:
    """Three classes around their text features, outside rows elsewhere, and pictures."""
    generator = torch.Generator().manual_seed(len(name))
    text = torch.randn(CLASSES, WIDTH, generator=generator)

    def rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % CLASSES
        return text[labels] + 1.5 * torch.randn(count, WIDTH, generator=generator), labels

    return make_task(
        name,
        *rows(24),
        *rows(90),
        class_names=["a <b>bold</b> one", "two", "one with a really very long name indeed"],
        text_features=text,
        ood_features=torch.randn(40, WIDTH, generator=generator),
        query_images=torch.randint(0, 255, (90, 3, 8, 8), generator=generator, dtype=torch.uint8),
    )


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Command -> the report it writes."""
    folder = tmp_path_factory.mktemp("reports")
    task = made_up("a task with a name_that_is_long")
    compared = compare([task], engines=("zero_shot", "map", "ekf"), shots=(2, 4), seeds=(0, 1))
    write_comparison(compared, folder / "compare")
    fitted = fit(task, FitSettings(batch_size=4))
    write_fit(fitted, task, folder / "fit", hold_out(task, fitted.posterior))
    measured = Comparison((score_posterior(fitted.posterior, task),), {task.name: task}, {})
    write_comparison(measured, folder / "evaluate")
    checked = check(["ekf", "laplace"], prior_logit_variances=(1.0,), simulations=20)
    write_check(replace(checked, notes=("a remark",)), folder / "check")
    return {path.name: path / "report.html" for path in folder.iterdir()}


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium on the path: install Debian's package chromium to test the reports in it")
    with Chromium(path) as running:
        yield running
