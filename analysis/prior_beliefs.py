"""Candidates with a covariance for prior_and_predictive.py: priors, rules, predictives, and who chooses."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
from prior_said import Said, belief_of, means_of, of_belief, problem_of
from pyro.distributions import Normal
from torch import Tensor

import bayes_clip as bc
from bayes_clip.fitting import Fit
from bayes_clip.gaussian.logits import SeparateLogits
from bayes_clip.gaussian.noise import keys_of
from bayes_clip.inference.held_out import held_out, searched
from bayes_clip.model import AdapterModel, find_model
from bayes_clip.predictive import average_softmax, closed_form
from bayes_clip.tuning import CENTRES, COVARIANCE_SCALES, HYPER_WIDTH, choose_scale

LADDER = (1.0, 3.0, 10.0, 30.0, 100.0)  # s² v, among which the evidence chooses
KEPT = 0.5  # of a shaped prior that stays isotropic: 47 texts say nothing of most of 512 directions
DRAWS = 256
VI_SEEDS = (0, 1)  # it is slow


def shaped(root: Tensor, rows: Tensor) -> type[AdapterModel]:
    """W ~ N(T A⁻¹, v I), logits s X A Wᵀ: a linear probe whose weights W A have the prior covariance v A².

    A (D, D), symmetric, is scaled so that the mean prior variance of a logit over `rows` is s² v, as it is
    for the isotropic prior.
    """
    root = root / (rows @ root).square().sum(-1).mean().sqrt()

    class ShapedProbe(AdapterModel):
        """A linear probe with a shaped prior."""

        def prior(self) -> dict[str, Normal]:
            mean = torch.linalg.solve(root.to(self.text_features).double(), self.text_features.mT.double()).mT
            return {
                "class_weights": Normal(mean.to(self.text_features), self.prior_variance**0.5).to_event(2)
            }

        def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
            return self.logit_scale * inputs @ root.to(inputs) @ weights["class_weights"].mT

    return ShapedProbe


def power_of_spread(rows: Tensor, power: float) -> Tensor:
    """(Σ (1 − κ) + κ I)^power, Σ (D, D) the covariance of the rows scaled to trace D, κ = KEPT."""
    centred = (rows - rows.mean(0)).double()
    covariance = centred.mT @ centred
    covariance *= (1 - KEPT) * len(covariance) / covariance.trace()
    covariance.diagonal().add_(KEPT)
    values, vectors = torch.linalg.eigh(covariance)
    return ((vectors * values**power) @ vectors.mT).to(rows)


def shaped_programs(drawn: bc.Task) -> dict[str, type[AdapterModel]]:
    """The linear probe with priors shaped by the texts, by the support features, and by their inverse.

    Shared by all classes: the directions in which a class weight may move are those in which texts, or
    unlabelled support features, differ.
    The inverse is a g-prior: what every direction may add to a logit is the same, in units of how far the
    features spread there.
    """
    rows = drawn.support_features
    assert drawn.text_features is not None
    return {
        "ekf, prior along texts": shaped(power_of_spread(drawn.text_features, 0.5), rows),
        "ekf, prior along features": shaped(power_of_spread(rows, 0.5), rows),
        "ekf, prior in function space": shaped(power_of_spread(rows, -0.5), rows),
    }


def filters(drawn: bc.Task) -> Iterator[Said]:
    """The filter by rule, predictive, prior and way of choosing the prior variance.

    Other rules and priors are fitted at the centre of their rule's hyper-prior, without a search.
    """
    start, scale = time.process_time(), drawn.logit_scale**2
    default = bc.fit(drawn, bc.FitSettings())
    spent, tuned, belief = time.process_time() - start, default.tuned, belief_of(drawn, default)
    for arm, factor in {
        "ekf": tuned.covariance_scale,
        "ekf, plug-in": 0.0,
        "ekf, closed form": 1.0,
    }.items():
        probabilities = closed_form(belief.mean, factor * belief.variance)
        split = arm == "ekf"
        yield of_belief(arm, drawn, belief, probabilities, tuned.prior_variance, factor, spent, split=split)
    drawn_average = average_softmax(
        SeparateLogits(belief.mean, belief.variance), keys_of(drawn.query_features), DRAWS
    )
    doubts = {"novelty": belief.novelty()}
    yield Said("ekf, Monte-Carlo", drawn_average, doubts, tuned.prior_variance, 1.0, spent)
    yield from by_evidence(drawn, default)
    iterated = bc.FitSettings(
        rule="iterated", prior_variance=CENTRES["iterated"] / scale, predictive="plug_in"
    )
    yield _fixed("ekf, iterated", drawn, iterated)
    fixed = bc.FitSettings(prior_variance=CENTRES["expected"] / scale, predictive="plug_in")
    yield _fixed("ekf, prior per class (clap)", drawn, fixed, find_model("clap"))
    for arm, program in shaped_programs(drawn).items():
        yield _fixed(arm, drawn, fixed, program)


def by_evidence(drawn: bc.Task, default: Fit) -> Iterator[Said]:
    """The prior variance by log evidence, by prequential score, and averaged over under a hyper-prior."""
    fits = {}
    for logit_variance in LADDER:
        variance = logit_variance / drawn.logit_scale**2
        same = math.isclose(default.tuned.prior_variance, variance, rel_tol=1e-6)
        settings = bc.FitSettings(prior_variance=variance, predictive="plug_in")
        fits[logit_variance] = default if same else bc.fit(drawn, settings)
    logits = {each: means_of(drawn, fit)[0] for each, fit in fits.items()}
    evidence = {each: fit.info["log_evidence"] for each, fit in fits.items()}
    for arm, score in {"ekf, evidence": "log_evidence", "ekf, prequential": "prequential_score"}.items():
        best = max(LADDER, key=lambda each: fits[each].info[score])
        belief = belief_of(drawn, fits[best])
        variance = best / drawn.logit_scale**2
        yield of_belief(arm, drawn, belief, logits[best].softmax(-1), variance, 0.0, split=False)
    centre = CENTRES["expected"]
    weights = torch.tensor(
        [evidence[each] - (math.log(each / centre) / HYPER_WIDTH) ** 2 / 2 for each in LADDER]
    ).double()
    averaged = sum(
        weight * logits[each].softmax(-1) for weight, each in zip(weights.softmax(0), LADDER, strict=True)
    )
    assert isinstance(averaged, Tensor)
    yield Said("ekf, hyper-prior and evidence", averaged)


def others(drawn: bc.Task, seed: int) -> Iterator[Said]:
    """Laplace at MAP's own variance, with its covariance at the scale of the folds or tempered; and VI.

    Tempered: p(y | z)^β under the prior variance v / β has the mode of v and 1/β of its covariance, so folds
    choose β by choosing a scale, here without the plug-in's scale of zero.
    """
    start = time.process_time()
    variance = bc.fit(drawn, bc.FitSettings(engine="map")).tuned.prior_variance
    settings = bc.FitSettings(engine="laplace", prior_variance=variance, predictive="plug_in")
    belief, problem = (
        belief_of(drawn, bc.fit(drawn, settings)),
        searched(problem_of(drawn, variance)),
    )
    folds, scale, tempered = held_out(problem, settings), 0.0, min(COVARIANCE_SCALES[1:])
    if folds is not None:
        moments = folds(variance)
        scale = choose_scale(lambda _: moments, problem.labels, variance).covariance_scale
        tempered = min(COVARIANCE_SCALES[1:], key=lambda each: _fold_loss(*moments, each, problem.labels))
    spent = time.process_time() - start
    for arm, factor in {"laplace": scale, "laplace, tempered": tempered, "laplace, closed form": 1.0}.items():
        probabilities = closed_form(belief.mean, factor * belief.variance)
        split = arm == "laplace"
        yield of_belief(arm, drawn, belief, probabilities, variance, factor, spent, split=split)
    if seed not in VI_SEEDS:
        return
    start, variance = time.process_time(), CENTRES["vi"] / drawn.logit_scale**2
    fit = bc.fit(drawn, bc.FitSettings(engine="vi", prior_variance=variance))
    belief, factor = belief_of(drawn, fit), fit.tuned.covariance_scale
    probabilities = closed_form(belief.mean, factor * belief.variance)
    yield of_belief("vi", drawn, belief, probabilities, variance, factor, time.process_time() - start)


def _fixed(
    arm: str, drawn: bc.Task, settings: bc.FitSettings, program: type[AdapterModel] | None = None
) -> Said:
    start = time.process_time()
    fit = bc.fit(drawn, settings, program=program)
    spent, belief = time.process_time() - start, belief_of(drawn, fit)
    return of_belief(
        arm, drawn, belief, belief.mean.softmax(-1), settings.prior_variance, 0.0, spent, split=False
    )


def _fold_loss(mean: Tensor, variance: Tensor, scale: float, labels: Tensor) -> float:
    chosen = closed_form(mean, scale * variance).gather(1, labels[:, None])
    return float(-chosen.clamp_min(torch.finfo(mean.dtype).tiny).log().mean())
