"""Posteriors taken over to another encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from pyro.distributions import Normal
from small_problems import assert_near, tiny_task
from torch import Tensor
from two_encoders import isometry

import bayes_clip as bc
from bayes_clip.carried_program import Destination
from bayes_clip.data.rows import Rows
from bayes_clip.data.task import few_shot
from bayes_clip.gaussian import ClassBlock, Diagonal
from bayes_clip.model import AdapterModel

FEATURES, WIDER, SCALE = 6, 9, 35.0
TASK = tiny_task(features=FEATURES)
TURN = isometry(WIDER, FEATURES)
UNSEEN = tiny_task(features=FEATURES, seed=1, queries=40).query_features
SETTINGS = bc.FitSettings(prior_variance=0.02, dtype="float64", predictive="plug_in")


def turned(task: bc.Task) -> bc.Task:
    """The same task as an encoder sees it that turns all features, with a logit scale of its own."""
    assert task.text_features is not None
    return replace(
        task,
        support_features=task.support_features.double() @ TURN.mT,
        query_features=task.query_features.double() @ TURN.mT,
        text_features=task.text_features.double() @ TURN.mT,
        logit_scale=SCALE,
    )


def to(task: bc.Task, **changes: object) -> Destination:
    return replace(Destination("v2", "bbbb", task.text_features, task.logit_scale), **changes)


def moved(posterior: bc.Posterior, task: bc.Task = TASK, **changes: object) -> bc.Transported:
    kind = str(changes.pop("kind", "procrustes"))
    rows = Rows(UNSEEN.double()), Rows(UNSEEN.double() @ TURN.mT)
    return bc.transport(posterior, to(turned(task), **changes), *rows, kind)


def same_zero_shot(task: bc.Task) -> bc.Task:
    """With text features such that the zero-shot logits of both encoders are the same to the last digit."""
    return replace(task, logit_scale=SCALE)


@pytest.mark.parametrize("engine", ["ekf", "laplace"])
def test_a_rotated_encoder_predicts_the_same(engine: str) -> None:
    task = same_zero_shot(TASK)
    posterior = bc.fit(task, replace(SETTINGS, engine=engine, predictive="closed_form")).posterior
    after = moved(posterior, task).posterior
    before, said = posterior.predict(task.query_features), after.predict(turned(task).query_features)
    assert_near(said.logit_mean, before.logit_mean)
    assert_near(said.logit_variance, before.logit_variance)
    assert_near(said.probabilities, before.probabilities)
    assert after.source.settings.engine == "ekf" and after.source.backbone == "bbbb"
    assert after.program.logit_scale == SCALE and after.stream is not None


def test_the_prior_variance_of_a_logit_stays() -> None:
    posterior = bc.fit(TASK, SETTINGS).posterior
    after = moved(posterior).posterior
    assert after.source.prior_variance * SCALE**2 == pytest.approx(0.02 * TASK.logit_scale**2)
    assert after.program.prior_variance == after.source.prior_variance


@pytest.mark.parametrize("kind", ["procrustes", "ridge"])
def test_it_learns_on_and_is_saved(tmp_path: Path, kind: str) -> None:
    after = moved(bc.fit(TASK, SETTINGS).posterior, kind=kind).posterior
    more = few_shot(turned(tiny_task(features=FEATURES, seed=0, shots=9)), 5, 0)
    more = replace(more, backbone="bbbb")
    after.save(tmp_path / "moved")
    loaded = bc.load_posterior(tmp_path / "moved")
    updates = [bc.update(posterior, more).posterior for posterior in (after, loaded)]
    said = [posterior.predict(more.query_features).probabilities for posterior in updates]
    assert torch.equal(*said)
    truth = more.query_labels
    nll = [
        -float(p.log()[range(len(truth)), truth].mean())
        for p in (after.predict(more.query_features).probabilities, said[0])
    ]
    assert nll[1] < nll[0]
    with pytest.raises(bc.UserError, match="encoded with backbone aaaa"):
        bc.update(after, replace(more, backbone="aaaa"))


def test_a_new_class_enters_at_the_new_prior() -> None:
    after = moved(bc.fit(TASK, SETTINGS).posterior).posterior
    wide = turned(tiny_task(4, FEATURES))
    more = replace(wide, class_names=("class 0", "class 1", "class 2", "another"))
    updated = bc.update(after, more)
    assert updated.added == ("another",)


@pytest.mark.parametrize("covariance", ["class_block", "diagonal", "full", "kronecker", "low_rank"])
def test_families(covariance: str) -> None:
    posterior = bc.fit(TASK, replace(SETTINGS, covariance=covariance)).posterior
    after = moved(posterior)
    kept = covariance in ("class_block", "diagonal")
    assert isinstance(after.posterior.weights, Diagonal if covariance == "diagonal" else ClassBlock)
    assert after.posterior.source.settings.family == (covariance if kept else "class_block")
    assert any("is carried as class_block" in note for note in after.notes) != kept


@pytest.mark.parametrize("model", ["task_residual", "tip_adapter", "clap", "gda"])
@pytest.mark.parametrize("covariance", [None, "low_rank"])
def test_programs_on_image_features_go_over(model: str, covariance: str | None) -> None:
    """To a rotated encoder without a change, where what they are made of is only turned."""
    task = same_zero_shot(TASK)
    settings = replace(SETTINGS, model=model, covariance=covariance)
    posterior = bc.fit(task, settings).posterior
    after = moved(posterior, task)
    assert after.noise < 1e-9 and after.map is not None
    there = turned(task)
    before, said = posterior.predict(task.query_features), after.posterior.predict(there.query_features)
    if model == "gda":  # its discriminant is regularised by the number of features, which differs
        agree = before.probabilities.argmax(-1) == said.probabilities.argmax(-1)
        assert float(agree.double().mean()) > 0.9
    else:
        assert_near(said.probabilities, before.probabilities, 1e-6)  # programs fill in float32 numbers
    updated = bc.update(after.posterior, few_shot(turned(TASK), 1, 0)).posterior
    assert updated.source.support_rows == posterior.source.support_rows + 3


def test_worse_maps_leave_more_doubt() -> None:
    posterior = bc.fit(TASK, SETTINGS).posterior
    noise = torch.randn(len(UNSEEN), WIDER, generator=torch.Generator().manual_seed(0)).double()
    clean = UNSEEN.double() @ TURN.mT
    there = turned(TASK)
    after = [
        bc.transport(posterior, to(there), Rows(UNSEEN.double()), Rows(clean + much * noise), "procrustes")
        for much in (0.0, 0.1, 0.5)
    ]
    widths = [float(one.posterior.predict(there.query_features).logit_variance.mean()) for one in after]
    assert widths == sorted(widths) and len(set(widths)) == 3
    assert [one.noise for one in after] == sorted(one.noise for one in after)


class TwoLayers(AdapterModel):
    """Not linear in its weights."""

    options: ClassVar[dict[str, float]] = {}

    def prior(self) -> dict[str, Normal]:
        size = self.text_features.shape[1]
        return {"shift": Normal(self.text_features.new_zeros(size), self.prior_variance**0.5).to_event(1)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        rows = torch.nn.functional.normalize(inputs + weights["shift"].unsqueeze(-2), dim=-1)
        return self.logit_scale * rows @ self.text_features.mT


def test_what_cannot_be_carried_is_refused_in_one_line() -> None:
    point = bc.fit(TASK, replace(SETTINGS, engine="map")).posterior
    curved = bc.fit(TASK, SETTINGS, program=TwoLayers).posterior
    linear = bc.fit(TASK, SETTINGS).posterior
    for posterior, changes, said in (
        (point, {}, "no covariance to carry"),
        (curved, {}, "TwoLayers: nothing says .* fit again there"),
        (linear, {"text_features": None}, "v2: no text features of the classes"),
        (linear, {"kind": "affine"}, "--map affine: no such map"),
    ):
        with pytest.raises(bc.UserError, match=said) as refused:
            moved(posterior, **changes)
        assert "\n" not in str(refused.value)


def test_without_text_there_is_none_on_either_side() -> None:
    task = replace(TASK, text_features=None)
    posterior = bc.fit(task, SETTINGS).posterior
    after = moved(posterior, TASK, text_features=None).posterior
    assert not after.program.context.has_text
    assert_near(after.program.text_features, torch.zeros(3, WIDER).double())
