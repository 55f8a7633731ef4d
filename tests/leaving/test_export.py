"""What is exported says what `predict` says, in a process that has no bayes_clip and stands elsewhere."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bayes_clip as bc
from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import HeldOut
from bayes_clip.leaving import export as module
from bayes_clip.leaving.export import ABOUT, NAMES, TOLERANCE, check_formats, export_posterior
from bayes_clip.leaving.predictive_program import predictive_program
from bayes_clip.posterior import Posterior

FAMILIES = ("class_block", "full", "diagonal", "diagonal_variational", "kronecker", "low_rank")
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
CLASSES, WIDTH = 4, 8

USE = """
import sys
sys.modules["bayes_clip"] = None
try:
    import bayes_clip
except ImportError:
    pass
else:
    raise SystemExit("bayes_clip can be imported")
import numpy as np, torch
where, onnx = sys.argv[1], sys.argv[2] == "True"
rows = np.load(f"{where}/rows.npy")
program = torch.export.load(f"{where}/predictive.pt2").module()
found = {}
for count in (1, 5, len(rows)):
    for index, value in enumerate(program(torch.from_numpy(rows[:count]))):
        found[f"torch_{count}_{index}"] = value.numpy()
if onnx:
    import onnxruntime
    session = onnxruntime.InferenceSession(f"{where}/predictive.onnx")
    names = [output.name for output in session.get_outputs()]
    assert names == ["probabilities", "novelty", "outside"][: len(names)], names
    for count in (1, 5, len(rows)):
        for index, value in enumerate(session.run(None, {"features": rows[:count]})):
            found[f"onnx_{count}_{index}"] = value
np.savez(f"{where}/found.npz", **found)
"""


@pytest.fixture(scope="module")
def task() -> Task:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(CLASSES, WIDTH)
    labels = torch.arange(CLASSES).repeat(4)
    return bc.make_task(
        "made",
        centres[labels] + 0.3 * torch.randn(len(labels), WIDTH, generator=generator),
        labels,
        torch.randn(20, WIDTH, generator=generator),
        torch.arange(20) % CLASSES,
        class_names=["ant", "bee", "çat", "dog"],
        text_features=centres + 0.1 * torch.randn(CLASSES, WIDTH, generator=generator),
    )


def fitted(task: Task, model: str = "linear_probe", **settings: object) -> Posterior:
    given = {"prior_variance": 0.01, "predictive": "closed_form"} | settings
    return bc.fit(task, bc.FitSettings(model=model, **given)).posterior  # type: ignore[arg-type]


def held_out(novelty: np.ndarray) -> HeldOut:
    return HeldOut(novelty, np.ones(len(novelty)), np.ones(len(novelty)))


@torch.no_grad()
def check(posterior: Posterior, rows: torch.Tensor) -> None:
    said, limit = posterior.predict(rows), float(posterior.predict(rows).novelty.double().median()) + 1e-4
    probabilities, novelty, outside = predictive_program(posterior, limit)(rows)
    assert (probabilities - said.probabilities).abs().max() < TOLERANCE
    torch.testing.assert_close(novelty.double(), said.novelty.double(), rtol=1e-4, atol=1e-4)
    assert (outside == (said.novelty > limit)).all() and 0 < outside.sum() < len(rows)


@pytest.mark.parametrize("predictive", ["closed_form", "plug_in"])
@pytest.mark.parametrize("covariance", FAMILIES)
def test_every_covariance_says_what_predict_says(task: Task, covariance: str, predictive: str) -> None:
    check(fitted(task, covariance=covariance, predictive=predictive), task.query_features)


def test_chosen_scales_guides_points_and_other_heads_too(task: Task) -> None:
    rows = task.query_features
    check(fitted(task, predictive="auto"), rows)
    check(fitted(task, engine="vi", covariance="low_rank"), rows)
    check(fitted(task, model="gda"), rows)
    check(fitted(task, model="clap", dtype="float64"), 5 * rows)  # scaled to unit length inside
    for model in ("linear_probe", "gda", "task_residual"):
        check(fitted(task, model=model, engine="map"), rows)


@pytest.mark.parametrize("covariance", ["class_block", "kronecker"])
def test_files_are_read_without_bayes_clip(task: Task, tmp_path: Path, covariance: str) -> None:
    posterior = fitted(task, covariance=covariance)
    rows, said = task.query_features, posterior.predict(task.query_features)
    novelty = said.novelty.double().numpy()
    formats = ("torch", "onnx") if HAS_ONNX else ("torch",)
    about = export_posterior(posterior, held_out(novelty), tmp_path, formats, false_alarms=0.5)
    np.save(tmp_path / "rows.npy", rows.numpy())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", USE, str(tmp_path), str(HAS_ONNX)],
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz") as found:
        for kind in formats:
            for count in (1, 5, len(rows)):
                probabilities, scores, outside = (found[f"{kind}_{count}_{index}"] for index in range(3))
                assert probabilities.dtype == np.float32
                assert np.abs(probabilities - said.probabilities[:count].numpy()).max() < TOLERANCE
                np.testing.assert_allclose(scores, novelty[:count], rtol=1e-4, atol=1e-4)
                apart = np.abs(novelty[:count] - about["novelty_limit"]) > 1e-4
                assert (outside == (novelty[:count] > about["novelty_limit"]))[apart].all()
    assert json.loads((tmp_path / ABOUT).read_text(encoding="utf-8")) == about
    assert about["class_names"] == ["ant", "bee", "çat", "dog"] and about["false_alarms"] == 0.5
    weights = load_file(tmp_path / NAMES["weights"])["mean_weights"]
    assert torch.equal(weights, posterior.weights.mean)


def test_what_cannot_be_exported_is_refused_by_name(task: Task) -> None:
    for posterior, words in (
        (fitted(task, model="tip_adapter"), "tip_adapter is no linear head.*Jacobian.*--engine map"),
        (fitted(task, model="tip_adapter", engine="map"), "tip_adapter are no affine map.*linear_probe"),
        (fitted(task, predictive="monte_carlo"), "monte_carlo.*closed_form or auto"),
    ):
        with pytest.raises(UserError, match=words):
            predictive_program(posterior, None)


def test_formats_are_checked_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--format onxx: no such format.*onnx"):
        check_formats(["torch", "onxx"])
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    check_formats(["torch"])
    with pytest.raises(UserError, match=r'needs onnx and onnxscript; pip install "bayes-clip\[export\]"'):
        check_formats(["onnx"])


def test_a_linear_head_of_bent_features_is_refused(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "bent.py"
    path.write_text(
        "import torch, pyro\nfrom pyro.distributions import Categorical, Normal\n"
        "def model(inputs, labels=None):\n"
        f"    weights = pyro.sample('weights', Normal(torch.zeros({CLASSES}, {WIDTH}), 1.0).to_event(2))\n"
        "    with pyro.plate('data', len(inputs)):\n"
        "        logits = torch.tanh(3 * inputs) @ weights.mT\n"
        "        return pyro.sample('labels', Categorical(logits=logits), obs=labels)\n"
    )
    posterior = fitted(task, model=str(path), covariance="full", prior_variance=None)
    with pytest.raises(UserError, match="linear in its weights but not in the features"):
        predictive_program(posterior, None)
