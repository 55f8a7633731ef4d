from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from small_problems import assert_near, tiny_task

from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.model import context_of, find_model, list_models
from bayes_clip.settings import FitSettings

OWN = '''
"""A probe on centred features."""

from pyro.distributions import Normal

from bayes_clip.model import AdapterModel


class Centred(AdapterModel):
    def prior(self):
        return {"weights": Normal(self.text_features, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights, inputs):
        return BODY
'''
LINEAR = OWN.replace("BODY", '2 * self.logit_scale * inputs @ weights["weights"].mT')
NOT_LINEAR = OWN.replace("BODY", '(inputs @ weights["weights"].mT) ** 3')
BAD_FILES = {
    "syntax": ("def (:", "does not import"),
    "raises": ("raise ValueError('first line\\nsecond line')", "does not import .*ValueError"),
    "imports": ("import a_module_that_is_not_there", "does not import .*a_module_that_is_not_there"),
    "empty": ("", "defines 0 subclasses of AdapterModel"),
    "two": (LINEAR + LINEAR[LINEAR.index("class") :].replace("Centred", "Other"), "defines 2 subclasses"),
}


@pytest.fixture
def write(tmp_path: Path, request: pytest.FixtureRequest):
    """Writes a program to a file and forgets the module it becomes after the test."""

    def to_file(text: str, name: str = "own_probe.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        request.addfinalizer(lambda: sys.modules.pop(f"bayes_clip.models.{path.stem}", None))
        return str(path)

    return to_file


def test_programs_are_found_by_name_and_registered_under_the_package() -> None:
    program = find_model("linear_probe")
    assert program.__name__ == "LinearProbe"
    assert program.__module__ == "bayes_clip.models.linear_probe"
    assert sys.modules["bayes_clip.models.linear_probe"].LinearProbe is program
    assert "linear_probe" not in sys.modules
    assert find_model("linear_probe") is program, "loaded once"


def test_every_program_is_listed_with_one_line() -> None:
    listed = list_models()
    assert listed["linear_probe"].startswith("A linear classifier")
    assert all(line and "\n" not in line for line in listed.values())


def test_a_misspelled_name_and_a_missing_file_are_refused() -> None:
    with pytest.raises(UserError, match=r"--models linear_prob: .* Did you mean 'linear_probe'"):
        find_model("linear_prob")
    with pytest.raises(UserError, match=r"nowhere\.py: no such model file"):
        find_model("nowhere.py")


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused_in_one_line_that_names_them(kind: str, write) -> None:
    text, message = BAD_FILES[kind]
    path = write(text, f"bad_{kind}.py")
    with pytest.raises(UserError, match=message) as refusal:
        find_model(path)
    assert "\n" not in str(refusal.value) and path in str(refusal.value)


def test_a_program_of_ones_own_goes_through_fit(write) -> None:
    """Twice the logit scale in the program is the linear probe at twice the scale."""
    task = tiny_task()
    path = write(LINEAR)
    common = {"engine": "map", "prior_variance": 0.01, "dtype": "float64"}
    own = fit(task, FitSettings(model=path, **common)).posterior
    twice = fit(tiny_task(logit_scale=40.0), FitSettings(**common)).posterior
    assert type(own.program).__module__ == "bayes_clip.models.own_probe"
    assert_near(own.weights.mean, twice.weights.mean)
    features = task.query_features
    assert_near(own.predict(features).probabilities, twice.predict(features).probabilities)


def test_a_program_that_is_not_linear_is_fitted_from_its_file(write) -> None:
    fitted = fit(tiny_task(), FitSettings(model=write(NOT_LINEAR, "cubic.py"), prior_variance=0.05))
    assert type(fitted.posterior.weights).__name__ == "Full"


def test_two_files_of_one_name_are_two_programs(write, tmp_path: Path) -> None:
    first = find_model(write(LINEAR, "same.py"))
    (tmp_path / "other").mkdir()
    second = find_model(write(LINEAR.replace("Centred", "Other"), "other/same.py"))
    assert (first.__name__, second.__name__) == ("Centred", "Other")


def test_without_text_the_prior_mean_is_zero() -> None:
    context = context_of(None, ("a", "b"), 100.0, 5)
    assert not context.has_text and not context.text_features.any()
    assert context.text_features.shape == (2, 5)
    assert context_of(torch.ones(2, 5), ("a", "b"), 100.0, 5).has_text
