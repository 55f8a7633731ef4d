"""What is held out: rows predicted by fits that did not see them, kept beside the posterior."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bayes_clip as bc
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import HeldOut, hold_out, load_held_out, save_with_held_out
from bayes_clip.evaluation.verdicts import VERDICT_COLUMNS, check_backbone, judge, save_verdicts
from bayes_clip.storage.folder import JSON_NAME

CLASSES, DIMENSION = 3, 6


def task(shots: int, spread: float = 0.3) -> bc.Task:
    """Three classes around the axes; the out-set lies around other axes."""
    generator = np.random.default_rng(1)

    def around(axes: np.ndarray, count: int) -> np.ndarray:
        centres = np.eye(DIMENSION)[axes.repeat(count)]
        return centres + spread * generator.normal(size=centres.shape)

    classes = np.arange(CLASSES)
    return bc.make_task(
        "three",
        around(classes, shots),
        classes.repeat(shots),
        around(classes, 40),
        classes.repeat(40),
        text_features=around(classes, 1),
        ood_features=around(classes + 3, 40),
        logit_scale=20.0,
    )


SETTINGS = bc.FitSettings(engine="laplace", prior_variance=0.3, dtype="float64")


def test_one_shot_leaves_nothing_to_hold_out() -> None:
    one = task(shots=1)
    assert hold_out(one, bc.fit(one, SETTINGS).posterior) is None


def test_held_out_equals_a_fit_without_the_fold() -> None:
    few = task(shots=2)
    posterior = bc.fit(few, SETTINGS).posterior
    held = hold_out(few, posterior)
    first = torch.tensor([0, 2, 4])  # the first shot of every class is a fold
    rest = replace(
        few, support_features=few.support_features[first + 1], support_labels=torch.arange(CLASSES)
    )
    prediction = bc.fit(rest, replace(SETTINGS, predictive=posterior.source.settings.predictive)).posterior
    expected = prediction.predict(few.support_features[first])
    assert held is not None
    assert held.novelty[first.numpy()] == pytest.approx(expected.novelty.numpy(), rel=1e-9)


def test_most_known_rows_are_in_and_most_others_out() -> None:
    many = task(shots=16, spread=0.15)
    posterior = bc.fit(many, bc.FitSettings()).posterior
    held = hold_out(many, posterior)
    assert held is not None and many.ood_features is not None
    names = many.class_names
    inside = judge(posterior.predict(many.query_features), names, None, held).rows
    outside = judge(posterior.predict(many.ood_features), names, None, held).rows
    assert np.mean([row["verdict"] == "in" for row in inside]) > 0.85
    assert np.mean([row["verdict"] == "out" for row in outside]) > 0.85


def test_abstention_keeps_the_risk_it_was_asked_for() -> None:
    held = HeldOut(np.ones(100), np.linspace(0.01, 1, 100), (np.arange(100) >= 40).astype(float))
    limit = held.confidence_limit(0.05)
    # 60 right and w wrong, one more counted in: (w + 1) / (61 + w) is at most 0.05 up to w = 2
    assert limit.threshold == pytest.approx(0.39) and limit.risk == pytest.approx(2 / 62)
    assert held.confidence_limit(0.0).coverage == 0
    few = task(shots=2)
    prediction = bc.fit(few, SETTINGS).posterior.predict(few.query_features)
    verdicts = judge(prediction, few.class_names, None, held, 0.05)
    for row in verdicts.rows:
        assert (row["abstained"] == "yes") == (row["probability"] < limit.threshold)
    assert "0.390" in verdicts.notes[0]


def test_abstention_without_held_out_rows_is_refused() -> None:
    one = task(shots=1)
    prediction = bc.fit(one, SETTINGS).posterior.predict(one.query_features)
    with pytest.raises(UserError, match="abstain"):
        judge(prediction, one.class_names, None, None, 0.1)
    verdicts = judge(prediction, one.class_names, None, None)
    assert {row["verdict"] for row in verdicts.rows} == {""} and "no in/out verdict" in verdicts.notes[0]


def test_kept_beside_the_posterior_and_never_beside_another(tmp_path: Path) -> None:
    few = task(shots=2)
    posterior = bc.fit(few, SETTINGS).posterior
    held = hold_out(few, posterior)
    save_with_held_out(posterior, held, tmp_path / "posterior")
    read = load_held_out(tmp_path / "posterior")
    assert held is not None and read is not None
    for name in ("novelty", "confidence", "correct"):
        assert np.array_equal(getattr(read, name), getattr(held, name))
    save_with_held_out(posterior, None, tmp_path / "posterior")
    assert load_held_out(tmp_path / "posterior") is None


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    few = task(shots=2)
    posterior = bc.fit(few, SETTINGS).posterior
    save_with_held_out(posterior, hold_out(few, posterior), tmp_path)
    (path,) = tmp_path.glob("held_out-*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{path.name}: was truncated or changed .*fit again"):
        load_held_out(tmp_path)


def test_what_the_first_format_held_out_is_still_read(tmp_path: Path) -> None:
    few = task(shots=2)
    posterior = bc.fit(few, SETTINGS).posterior
    held = hold_out(few, posterior)
    save_with_held_out(posterior, held, tmp_path)
    (path,) = tmp_path.glob("held_out-*.safetensors")
    path.rename(tmp_path / "held_out.safetensors")
    described = json.loads((tmp_path / JSON_NAME).read_text())
    first = {key: value for key, value in described.items() if key not in ("held_out", "stream", "numbers")}
    (tmp_path / JSON_NAME).write_text(json.dumps({**first, "format": 1}))
    read = load_held_out(tmp_path)
    assert held is not None and read is not None and np.array_equal(read.novelty, held.novelty)
    save_with_held_out(posterior, None, tmp_path)
    assert load_held_out(tmp_path) is None and len(list(tmp_path.iterdir())) == 2


def test_verdicts_are_written_whole(tmp_path: Path) -> None:
    few = task(shots=2)
    verdicts = judge(bc.fit(few, SETTINGS).posterior.predict(few.query_features), few.class_names, None, None)
    save_verdicts(verdicts, tmp_path / "rows.csv")
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert lines[0] == ",".join(VERDICT_COLUMNS) and len(lines) == 1 + len(few.query_labels)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_other_backbone_is_refused() -> None:
    few = replace(task(shots=2), backbone="aaaa")
    posterior = bc.fit(few, SETTINGS).posterior
    check_backbone(posterior, "aaaa", "new.npz")
    check_backbone(posterior, None, "new.npz")
    with pytest.raises(UserError, match=r"new\.npz.*bbbb.*aaaa"):
        check_backbone(posterior, "bbbb", "new.npz")
