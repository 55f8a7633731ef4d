from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from small_problems import assert_near, tiny_task
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.gaussian import ClassBlock, Diagonal, Full
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference.engines import Weights
from bayes_clip.model import Context, find_model
from bayes_clip.posterior import Posterior, Source
from bayes_clip.predictive import closed_form
from bayes_clip.settings import FitSettings

TASK = tiny_task()
CLASSES, FEATURES = TASK.text_features.shape


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive_definite(*batch: int, size: int) -> Tensor:
    root = random(*batch, size, size, seed=1)
    return (root @ root.mT / size + torch.eye(size).double()) / 100


MEAN = TASK.text_features.double()
WEIGHTS: dict[str, Weights] = {
    "class_block": ClassBlock(MEAN, positive_definite(CLASSES, size=FEATURES)),
    "diagonal": Diagonal(MEAN, random(CLASSES, FEATURES).square() / 100),
    "full": Full(MEAN, positive_definite(size=CLASSES * FEATURES)),
    "low_rank": LowRank(MEAN, torch.full_like(MEAN, 0.01), random(CLASSES, FEATURES, 2, seed=2) / 10),
    "point": Point(MEAN),
    "draws": Draws(MEAN + random(500, CLASSES, FEATURES, seed=3) / 10),
}


def posterior(kind: str, **settings: object) -> Posterior:
    """A posterior around the text features, made by hand."""
    context = Context(MEAN, TASK.class_names, TASK.logit_scale)
    chosen = FitSettings(prior_variance=0.01, dtype="float64", **settings)
    source = Source(chosen, "tiny", None, 4, 0, 12, 0.01, 0.3)
    return Posterior(find_model("linear_probe")(context, 0.01), WEIGHTS[kind], source)


def dense_moments(weights: Weights) -> tuple[Tensor, Tensor]:
    mean = weights.mean.reshape(-1)
    if isinstance(weights, Full):
        return mean, weights.covariance
    if isinstance(weights, ClassBlock):
        return mean, torch.block_diag(*weights.covariance)
    if isinstance(weights, Draws):
        return mean, torch.cov(weights.samples.flatten(1).mT, correction=0)
    covariance = torch.zeros(len(mean), len(mean)).double()
    if isinstance(weights, Diagonal | LowRank):
        covariance += torch.diag(weights.variance.reshape(-1))
    if isinstance(weights, LowRank):
        factor = weights.factor.reshape(len(mean), -1)
        covariance += factor @ factor.mT
    return mean, covariance


@pytest.mark.parametrize("kind", WEIGHTS)
def test_draws_of_the_guide_have_the_moments_of_the_belief(kind: str) -> None:
    """Sample moments of 20,000 draws: their error is about a per cent of a variance."""
    torch.manual_seed(0)
    guide = posterior(kind)
    flat = guide.get_posterior().sample((20_000,))
    mean, covariance = dense_moments(WEIGHTS[kind])
    assert flat.shape == (20_000, CLASSES * FEATURES)
    scale = max(float(covariance.abs().max()), 1e-6)
    assert float((flat.mean(0) - mean).abs().max()) < 0.04 * scale**0.5
    assert float((torch.cov(flat.mT) - covariance).abs().max()) < 0.06 * scale


@pytest.mark.parametrize("kind", WEIGHTS)
def test_it_is_a_guide_for_pyros_predictive(kind: str) -> None:
    torch.manual_seed(0)
    guide = posterior(kind)
    features = TASK.query_features.double()
    sites = ["class_weights", "labels"]
    drawn = Predictive(guide.program, guide=guide, num_samples=300, return_sites=sites)(features)
    assert drawn["labels"].shape == (300, len(features))
    weights = drawn["class_weights"].reshape(300, CLASSES, FEATURES)  # Pyro keeps a place for the plate
    frequencies = torch.nn.functional.one_hot(drawn["labels"], CLASSES).double().mean(0)
    wanted = posterior(kind, predictive="monte_carlo").predict(features).probabilities
    assert float((frequencies - wanted).abs().mean()) < 0.05
    if kind == "point":
        assert torch.equal(weights, MEAN.expand(300, -1, -1))


@pytest.mark.parametrize("kind", ["class_block", "diagonal", "full", "low_rank"])
def test_the_elbo_of_a_gaussian_is_finite_and_below_the_log_evidence(kind: str) -> None:
    torch.manual_seed(0)
    guide = posterior(kind)
    inputs, labels = TASK.support_features.double(), TASK.support_labels
    elbo = -Trace_ELBO(num_particles=200).loss(guide.program, guide, inputs, labels)
    prior = MEAN + 0.1 * random(20_000, CLASSES, FEATURES, seed=5)
    rows = (TASK.logit_scale * inputs @ prior.mT).log_softmax(-1)[:, range(len(labels)), labels]
    evidence = float(rows.sum(-1).logsumexp(0)) - float(torch.tensor(20_000.0).log())
    assert -1e4 < elbo < evidence


@pytest.mark.parametrize("kind", WEIGHTS)
def test_predictions_do_not_depend_on_the_length_of_the_features(kind: str) -> None:
    guide = posterior(kind)
    features = TASK.query_features.double()
    lengths = random(len(features), 1).abs() + 0.1
    one, other = guide.predict(features), guide.predict(lengths * features)
    for field, value in vars(one).items():
        assert_near(getattr(other, field), value)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_uncertainties_are_what_they_are_called(kind: str) -> None:
    guide = posterior(kind)
    features = TASK.query_features.double()
    said = guide.predict(features)
    mean, variance = WEIGHTS[kind].logit_moments(TASK.logit_scale * features)
    assert_near(said.logit_mean, mean, 1e-6)
    assert_near(said.logit_variance, variance, 1e-6)
    top = said.probabilities.argmax(-1)
    if kind == "point":
        assert not said.epistemic.any()
        assert_near(said.novelty, 1 - said.probabilities.amax(-1))
        assert guide.novelty_score == "one minus the largest probability"
    else:
        assert (said.epistemic > 0).all()
        assert_near(said.novelty, (variance - mean)[range(len(top)), top], 1e-6)
        assert guide.novelty_score == "variance minus mean of the winning logit"


def test_the_predictive_asked_for_is_the_one_used() -> None:
    features = TASK.query_features.double()
    mean, variance = WEIGHTS["full"].logit_moments(TASK.logit_scale * features)
    wanted = {
        "plug_in": ("plug_in", mean.softmax(-1)),
        "closed_form": ("closed_form x1", closed_form(mean, variance)),
        "auto": ("closed_form x0.3", closed_form(mean, 0.3 * variance)),
    }
    for asked, (name, probabilities) in wanted.items():
        guide = posterior("full", predictive=asked)
        assert guide.predictive == name
        assert_near(guide.predict(features).probabilities, probabilities, 1e-6)
    assert posterior("point", predictive="monte_carlo").predictive == "plug_in"
    assert posterior("draws").predictive == "monte_carlo"


def test_a_scale_of_zero_is_plug_in() -> None:
    guide = posterior("full")
    guide.source = replace(guide.source, covariance_scale=0.0)
    assert guide.predictive == "plug_in"


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda rows: rows[:, :-1], r"features of shape \(60, 5\): this posterior takes \(N, 6\)"),
        (lambda rows: rows[0], r"features of shape \(6,\)"),
        (lambda rows: rows.index_fill(0, torch.tensor(7), float("nan")), "features row 7 is zero, NaN"),
        (lambda rows: rows.index_fill(0, torch.tensor(3), 0.0), "features row 3 is zero"),
        (lambda rows: rows.index_fill(0, torch.tensor(5), float("inf")), "features row 5 "),
    ],
)
def test_features_that_make_no_sense_are_refused(spoil, message: str) -> None:
    with pytest.raises(UserError, match=message):
        posterior("point").predict(spoil(TASK.query_features.double()))


def test_zero_shot_is_the_softmax_of_clips_logits() -> None:
    zero_shot = fit(TASK, FitSettings(engine="zero_shot", dtype="float64")).posterior
    logits = TASK.logit_scale * TASK.query_features.double() @ TASK.text_features.double().mT
    said = zero_shot.predict(TASK.query_features)
    assert_near(said.probabilities, logits.softmax(-1), 1e-6)
    assert zero_shot.is_point
    single = fit(TASK, FitSettings(engine="zero_shot")).posterior.predict(TASK.query_features)
    assert torch.equal(single.probabilities.argmax(-1), logits.argmax(-1))


def test_it_says_what_it_is() -> None:
    guide = posterior("full")
    assert "3 classes, 6 features, 12 labels" in repr(guide)
    assert guide.class_names == TASK.class_names
