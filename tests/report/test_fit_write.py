"""The report of a fit: from its labels alone, beside the posterior and never in it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_clip.cli import main
from bayes_clip.data.task import Task, make_task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import hold_out
from bayes_clip.fitting import fit
from bayes_clip.report.fit_write import FIT_FILES, document_of, write_fit
from bayes_clip.settings import FitSettings


@pytest.fixture(scope="module")
def task() -> Task:
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(3, 6, generator=generator)
    labels = torch.arange(24) % 3
    features = text[labels] + torch.randn(24, 6, generator=generator)
    return make_task("small", features, labels, features[:6], labels[:6], text_features=text)


def test_a_filter_shows_its_prior_its_stream_and_what_was_left_out(task: Task, tmp_path: Path) -> None:
    fitted = fit(task, FitSettings(batch_size=4))
    write_fit(fitted, task, tmp_path / "report", hold_out(task, fitted.posterior), {"asked": "<this>"})
    assert {path.name for path in (tmp_path / "report").iterdir()} == FIT_FILES - {"suspects.csv"}
    page = (tmp_path / "report" / "report.html").read_text()
    for anchor in ("prior_variance", "prequential_score", "innovations", "held_out_reliability"):
        assert f'id="figure-{anchor}"' in page
    assert "&lt;this&gt;" in page and "<this>" not in page
    with (tmp_path / "report" / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(fitted.steps) and sum(int(row["rows"]) for row in rows) == 24
    total = sum(float(row["prequential_score"]) for row in rows)
    assert total == pytest.approx(fitted.info["prequential_score"])
    assert json.loads((tmp_path / "report" / "config.json").read_text())["settings"]["batch_size"] == 4


def test_what_is_not_known_is_not_shown(task: Task, tmp_path: Path) -> None:
    one_shot = task.with_support(torch.arange(3))
    fitted = fit(one_shot, FitSettings(engine="map"))
    document = document_of(fitted, one_shot, None, {})
    assert document.pictures == []
    assert any("nothing is known of errors" in words for words in document.sections[0].sentences)
    given = fit(task, FitSettings(prior_variance=0.5))
    words = [words for section in document_of(given, task, None, {}).sections for words in section.paragraphs]
    assert any("0.5, was given" in said for said in words)
    write_fit(fitted, one_shot, tmp_path / "report")
    assert not (tmp_path / "report" / "steps.csv").exists()


def test_query_rows_change_nothing(task: Task) -> None:
    fitted = fit(task, FitSettings(batch_size=4))
    held_out = hold_out(task, fitted.posterior)
    other = replace(task, query_features=-task.query_features)
    first, second = (document_of(fitted, each, held_out, {}) for each in (task, other))
    assert [one.alt for one in first.pictures] == [two.alt for two in second.pictures]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_the_command_writes_it_beside_the_posterior_and_refuses_it_inside(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(
        tmp_path / "task.npz",
        support_features=task.support_features,
        support_labels=task.support_labels,
        query_features=task.query_features,
        query_labels=task.query_labels,
        text_features=task.text_features,
    )
    asked = ("fit", tmp_path / "task.npz", "--out", tmp_path / "posterior", "--report")
    for inside in (tmp_path / "posterior", tmp_path / "posterior" / "report"):
        assert run(*asked, inside) == 2
        assert "--report" in capsys.readouterr().err and not (tmp_path / "posterior").exists()
    assert run(*asked, tmp_path / "report") == 0
    assert f"report: {tmp_path / 'report' / 'report.html'}" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "report").iterdir()} == FIT_FILES
    assert run(*asked, tmp_path / "report", "--resume") == 0
    assert "no report: the fit had finished before" in "".join(capsys.readouterr())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    assert run(*asked, tmp_path / "other") == 2
    assert "--report" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(task: Task, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        write_fit(fit(task, FitSettings(engine="map")), task, tmp_path)
