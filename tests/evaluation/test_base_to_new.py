from __future__ import annotations

from dataclasses import replace

import pyro
import pytest
import torch
from pyro.distributions import Categorical, Normal
from small_problems import EXACT, tiny_task

from bayes_clip.data.task import few_shot
from bayes_clip.errors import UserError
from bayes_clip.evaluation.base_to_new import halves, harmonic, has_weights_of_classes, on_new_classes
from bayes_clip.fitting import fit
from bayes_clip.model import AdapterModel
from bayes_clip.settings import FitSettings

TASK = tiny_task(5, shots=3)
SETTINGS = FitSettings(prior_variance=0.01)


class Turned(AdapterModel):
    """logits = s X (I + A) Tᵀ: weights that all classes share."""

    def prior(self):  # type: ignore[no-untyped-def]
        size = self.text_features.shape[1]
        zero = torch.zeros(size, size).to(self.text_features)
        return {"turn": Normal(zero, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights, inputs):  # type: ignore[no-untyped-def]
        turned = inputs + inputs @ weights["turn"]
        return self.logit_scale * turned @ self.text_features.mT


def test_the_first_half_of_the_classes_is_rounded_up() -> None:
    base, new = halves(TASK)
    assert base.class_names == TASK.class_names[:3] and new.class_names == TASK.class_names[3:]
    assert base.support_labels.unique().tolist() == [0, 1, 2] and new.query_labels.unique().tolist() == [0, 1]
    assert torch.equal(new.text_features, TASK.text_features[3:])  # type: ignore[index, arg-type]
    rows = TASK.query_labels >= 3
    assert torch.equal(new.query_features, TASK.query_features[rows])
    assert torch.equal(new.query_labels + 3, TASK.query_labels[rows])
    assert len(base.support_labels) + len(new.support_labels) == len(TASK.support_labels)


def test_the_draw_of_the_learned_half_is_part_of_the_draw_of_all() -> None:
    drawn = few_shot(TASK, 2, 1)
    base, _ = halves(drawn)
    assert torch.equal(base.support_features, drawn.support_features[: 3 * 2])


def test_a_task_without_text_or_with_few_classes_is_refused() -> None:
    with pytest.raises(UserError, match="base-to-new needs text_features"):
        halves(tiny_task(5, text=False))
    with pytest.raises(UserError, match="at least four"):
        halves(tiny_task(3))


def test_weights_of_single_classes_know_nothing_of_others() -> None:
    base, new = halves(TASK)
    fitted = fit(base, replace(SETTINGS, engine="ekf"))
    assert has_weights_of_classes(fitted.posterior.program)
    said = on_new_classes(fitted.posterior, new).predict(new.query_features).probabilities
    assert new.text_features is not None
    zero_shot = (new.logit_scale * new.query_features @ new.text_features.mT).double().softmax(-1)
    assert torch.allclose(said, zero_shot, atol=1e-5)


@pytest.mark.parametrize("task", [TASK, tiny_task(4, shots=3)])  # also where both halves are as large
@pytest.mark.parametrize("engine", ["map", "laplace"])
def test_weights_that_classes_share_are_taken_along(task: object, engine: str) -> None:
    base, new = halves(task)  # type: ignore[arg-type]
    settings = FitSettings(engine=engine, prior_variance=0.01, dtype="float64", predictive="plug_in")
    posterior = fit(base, settings, program=Turned).posterior
    assert not has_weights_of_classes(posterior.program)
    turn = posterior.weights.mean.reshape(6, 6)
    assert turn.abs().max() > 1e-3
    text = new.text_features.double()  # type: ignore[union-attr]
    rows = new.query_features.double()
    rows = rows / rows.norm(dim=-1, keepdim=True)
    wanted = (new.logit_scale * (rows + rows @ turn) @ text.mT).softmax(-1)
    said = on_new_classes(posterior, new).predict(new.query_features).probabilities
    assert torch.allclose(said, wanted, atol=EXACT)


@pytest.mark.parametrize("name", ["visual_projection", "clip_adapter_no_relu"])
def test_weights_along_the_learned_texts_are_taken_along_with_them(name: str) -> None:
    base, new = halves(TASK)
    settings = FitSettings(name, "map", prior_variance=10.0, dtype="float64", predictive="plug_in")
    posterior = fit(base, settings).posterior
    assert not has_weights_of_classes(posterior.program) and base.text_features is not None
    # texts that are mixtures of the learned ones: their logits are mixtures of the learned ones' logits
    mixture = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.5, 0.5]])
    mixed = replace(new, text_features=mixture @ base.text_features)
    ((site, prior),) = posterior.program.prior().items()
    weights = {site: posterior.weights.mean.reshape(prior.shape())}
    rows = new.query_features.double()
    learned = posterior.program.logits(weights, rows)
    taken = on_new_classes(posterior, mixed).program.logits(weights, rows)
    assert torch.allclose(taken, learned @ mixture.double().mT, rtol=1e-5)  # texts are float32
    untrained = on_new_classes(posterior, mixed).program.logits({site: 0 * weights[site]}, rows)
    assert (taken - untrained).abs().max() > 0.01


def test_the_support_rows_of_new_classes_are_not_read() -> None:
    base, new = halves(TASK)
    posterior = fit(base, replace(SETTINGS, engine="map")).posterior
    scrambled = replace(new, support_features=-new.support_features)
    said = [
        on_new_classes(posterior, one).predict(new.query_features).probabilities for one in (new, scrambled)
    ]
    assert torch.equal(*said)


def test_a_plain_function_says_nothing_of_other_classes() -> None:
    base, new = halves(TASK)

    def plain(inputs, labels=None):  # type: ignore[no-untyped-def]
        weights = pyro.sample("w", Normal(torch.zeros(3, 6), 1.0).to_event(2))
        with pyro.plate("data", len(inputs)):
            return pyro.sample("y", Categorical(logits=inputs @ weights.mT), obs=labels)

    posterior = fit(base, FitSettings(engine="map"), program=plain).posterior
    with pytest.raises(UserError, match="plain: a plain function has its classes in it"):
        on_new_classes(posterior, new)


def test_the_harmonic_mean() -> None:
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3) and harmonic(0.0, 0.0) == 0.0
