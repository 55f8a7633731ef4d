"""Every identity that the tests hold the code to is seen to fail when its formula is deliberately broken.

A check that cannot fail shows nothing. Each line of BREAKS replaces one function by a wrong version, in
process, and requires an AssertionError of a check that stands elsewhere in the tests; first the check must
pass unbroken.
"""

from __future__ import annotations

from dataclasses import replace
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from broken import Break
from torch import Tensor

FILTER = "inference/test_gaussian_filter.py"
KALMAN = "inference/test_kalman.py"
RULES = "inference/test_rules.py"
SMOOTHER = "inference/test_smoother.py"
CLOSED_FORM = f"{FILTER}::test_the_filter_is_the_closed_form"
LAPLACE = f"{KALMAN}::test_one_batch_iterated_is_the_mode_with_the_laplace_covariance"
SYMMETRIES = f"{RULES}::test_permuting_classes_and_a_common_offset_change_nothing_else"
NUTS = "oracles/test_nuts.py::test_engines_have_the_moments_of_the_chain"
THREE = {"rule": "plain", "pieces": [[0, 1, 2], [3, 4], [5, 6, 7, 8]]}
ONE = {"rule": "plain", "pieces": [list(range(9))]}
NARROW = "24 labels, 2 features"


def grows(right: Any) -> Any:
    """The covariance is widened by what it should be narrowed by."""
    return lambda self, projection, dual, downdate: right(self, projection, dual, -downdate)


def half_a_step(right: Any) -> Any:
    """The mean moves half as far as it should."""
    return lambda self, projection, dual, *rest: right(self, projection, dual / 2, *rest)


def without_noise(right: Any) -> Any:
    """A time step forgets its process noise."""
    return lambda self, mean, decay, noise: right(self, mean, decay, torch.zeros_like(noise))


def towards_zero(right: Any) -> Any:
    """A time step decays towards zero instead of the prior mean."""
    return lambda self, mean, decay, noise: right(self, torch.zeros_like(mean), decay, noise)


def keeps_it(right: Any) -> Any:
    """A batch is not taken out before it is put in again, so that it counts twice."""
    return lambda state, batch, site, **_: state


def uncoupled(right: Any) -> Any:
    """diag(p) (1 − p) for diag(p) − p pᵀ: the classes are taken as independent."""
    return lambda self: torch.diag_embed(right(self).diagonal(dim1=-2, dim2=-1))


def uncoupled_blocks(right: Any) -> Any:
    """The same where the classes have blocks of their own."""
    return lambda self, curvature: self.site_downdate(curvature.own)


def halved(right: Any) -> Any:
    """Half of what it should be."""
    return lambda *args, **kwargs: right(*args, **kwargs) / 2


def moves_its_prior(right: Any) -> Any:
    """The iterated rule takes its own answer for the prediction, and learns from the batch again."""

    def mode(observation: Any, gram: Any, predicted: Tensor, labels: Tensor, tolerance: float) -> Any:
        _, excess, _ = right(observation, gram, predicted, labels, tolerance)
        return right(observation, gram, predicted + excess, labels, tolerance)

    return mode


def keeps_its_width(right: Any) -> Any:
    """The covariance stays what it was."""
    return lambda self, projection, dual, downdate: right(self, projection, dual, 0 * downdate)


def fades(right: Any) -> Any:
    """The covariance shrinks by a tenth at every batch, whatever that says."""

    def condition(self: Any, projection: Any, dual: Tensor, downdate: Tensor) -> Any:
        return replace(right(self, projection, dual, downdate), covariance=0.9 * self.covariance)

    return condition


def half_the_variance(right: Any) -> Any:
    """Predicted logits have the right mean and half their variance."""
    return lambda self, design, *budget: (right(self, design)[0], right(self, design)[1] / 2)


def favours_the_first_class(right: Any) -> Any:
    """The first class counts double in every Newton step."""

    def newton(self: Any, curvature: Any, excess: Tensor, residual: Tensor) -> Tensor:
        return right(self, curvature, excess, residual * torch.tensor([2.0, 1, 1, 1]).to(residual))

    return newton


def against_nothing(right: Any) -> Any:
    """exp z / (1 + Σ exp z): a class that is not there has logit zero."""
    return lambda self, logits: torch.nn.functional.pad(logits, (0, 1)).softmax(-1)[..., :-1]


def with_prior(factor: float) -> Any:
    """Laplace with `factor` times the prior variance it was given."""
    return lambda right: lambda design, mode, variance, rest: right(design, mode, factor * variance, rest)


def summed_not_averaged(right: Any) -> Any:
    """A ⊗ B without the division by the number of rows."""
    return lambda alpha, beta, rows: torch.outer(alpha, beta)


def swapped(right: Any) -> Any:
    """The class axes stand in the wrong order beside the spread along them."""

    def condition(self: Any, projection: Any, dual: Tensor, downdate: Tensor) -> Any:
        found = right(self, projection, dual, downdate)
        return replace(found, class_axes=found.class_axes.flip(1))

    return condition


def forgets_the_diagonal(right: Any) -> Any:
    """What does not fit into the low rank is dropped: all but the first direction."""

    def largest(self: Any, projection: Any, root: Tensor, direction: Tensor) -> Any:
        after = right(self, projection, root, direction)
        factor = after.factor.clone()
        factor[..., 1:] = 0
        return replace(after, factor=factor)

    return largest


def transposed_gain(right: Any) -> Any:
    """The smoother's gain is transposed: γ (P⁻)⁻¹ P for P γ (P⁻)⁻¹."""
    return lambda target, factor: right(target, factor).mT


def later_counts_twice(right: Any) -> Any:
    """The smoother adds what the later steps say to what they said already."""

    def step(state: Any, later: Any, dynamics: Any) -> Any:
        found, tie = right(state, later, dynamics)
        return replace(found, mean=found.mean + (found.mean - state.belief.mean)), tie

    return step


BREAKS = [
    Break(
        "linear-Gaussian closed form",
        "the covariance grows by what it should shrink by",
        "bayes_clip.gaussian.full.Full.condition",
        grows,
        CLOSED_FORM,
        ONE,
    ),
    Break(
        "linear-Gaussian closed form",
        "the mean moves half as far",
        "bayes_clip.gaussian.class_block.ClassBlock.visited",
        half_a_step,
        CLOSED_FORM,
        ONE,
    ),
    Break(
        "linear-Gaussian closed form",
        "the log determinant of the evidence is halved",
        "bayes_clip.gaussian.gram.DenseGram.log_determinant",
        halved,
        CLOSED_FORM,
        ONE,
    ),
    Break(
        "Pyro's GaussianHMM",
        "a time step adds no process noise",
        "bayes_clip.gaussian.full.Full.diffuse",
        without_noise,
        f"{KALMAN}::test_a_drifting_stream_is_pyros_gaussian_hmm",
        {"decay": 1.0, "process_noise": 0.2},
    ),
    Break(
        "Pyro's GaussianHMM",
        "weights decay towards zero instead of the prior mean",
        "bayes_clip.gaussian.full.Full.diffuse",
        towards_zero,
        "oracles/test_gaussian_hmm.py::test_the_filter_is_the_hmm_around_a_prior_mean",
        {"decay": 0.7},
    ),
    Break(
        "batch = sequential",
        "the covariance stays what it was after each batch",
        "bayes_clip.gaussian.full.Full.condition",
        keeps_its_width,
        CLOSED_FORM,
        THREE,
    ),
    Break(
        "order invariance for Q = 0",
        "each batch counts a little less than the one before",
        "bayes_clip.gaussian.full.Full.condition",
        fades,
        f"{FILTER}::test_neither_order_nor_batches_matter",
        {"order": [8, 1, 2, 3, 4, 5, 6, 7, 0], "size": 3},
    ),
    Break(
        "relinearisation invariance",
        "a datum counts again at every pass",
        "bayes_clip.inference.stream.take_out",
        keeps_it,
        f"{FILTER}::test_further_passes_and_relinearisations_count_no_datum_twice",
        {"rule": "iterated"},
    ),
    Break(
        "relinearisation invariance",
        "the prior moves with the iteration",
        "bayes_clip.inference.rules._mode",
        moves_its_prior,
        CLOSED_FORM,
        ONE | {"rule": "iterated"},
    ),
    Break(
        "one batch iterated = MAP and Laplace",
        "the classes are taken as independent in the covariance",
        "bayes_clip.gaussian.gram.BlockGram.downdate",
        uncoupled_blocks,
        LAPLACE,
        {"family": "class_block"},
    ),
    Break(
        "one batch iterated = MAP and Laplace",
        "the classes are taken as independent in the curvature",
        "bayes_clip.curvature.SoftmaxCurvature.dense",
        uncoupled,
        LAPLACE,
        {"family": "full"},
    ),
    Break(
        "one batch iterated = MAP and Laplace",
        "Laplace forgets the prior",
        "bayes_clip.inference.laplace._full",
        with_prior(1e6),
        LAPLACE,
        {"family": "full"},
    ),
    Break(
        "smoother = joint Gaussian",
        "the gain is transposed",
        "torch.cholesky_solve",
        transposed_gain,
        f"{SMOOTHER}::test_decay_and_noise_of_each_weight",
        {"family": "full"},
    ),
    Break(
        "smoother = joint Gaussian",
        "later steps count twice",
        "bayes_clip.inference.smoother._step",
        later_counts_twice,
        f"{SMOOTHER}::test_decay_and_noise_of_each_weight",
        {"family": "class_block"},
    ),
    Break(
        "class permutation",
        "the first class counts double",
        "bayes_clip.gaussian.gram.BlockGram.newton",
        favours_the_first_class,
        SYMMETRIES,
        {"order": [2, 0, 3, 1], "offset": 0.0, "seed": 0, "variance": 1.0, "rule": "plain"},
    ),
    Break(
        "a constant added to all logits",
        "probabilities are taken against a class that is not there",
        "bayes_clip.observation.Softmax.response",
        against_nothing,
        SYMMETRIES,
        {"order": [0, 1, 2, 3], "offset": 5.0, "seed": 0, "variance": 1.0, "rule": "plain"},
    ),
    Break(
        "low rank at full rank = full",
        "only one direction is kept",
        "bayes_clip.gaussian.low_rank.LowRankPrecision._largest",
        forgets_the_diagonal,
        "gaussian/test_low_rank.py::test_at_full_rank_it_is_the_full_covariance",
    ),
    Break(
        "Kronecker on Kronecker data = full",
        "the product of the sums is not divided by the number of rows",
        "bayes_clip.gaussian.kronecker._scaled",
        summed_not_averaged,
        "gaussian/test_kronecker.py::test_on_kronecker_data_it_is_the_full_covariance",
        {"batches": 3},
    ),
    Break(
        "Kronecker on Kronecker data = full",
        "the class axes come in the wrong order",
        "bayes_clip.gaussian.kronecker.Kronecker.condition",
        swapped,
        "gaussian/test_kronecker.py::test_on_kronecker_data_it_is_the_full_covariance",
        {"batches": 3},
    ),
    Break(
        "laplace-torch",
        "the prior precision counts twice in the covariance",
        "bayes_clip.inference.laplace._full",
        with_prior(0.5),
        "oracles/test_laplace_torch.py::test_covariance_is_theirs",
        {"name": "3 classes, few features"},
    ),
    Break(
        "laplace-torch",
        "predicted variances are halved",
        "bayes_clip.gaussian.class_block.ClassBlock.logit_moments",
        half_the_variance,
        "oracles/test_laplace_torch.py::test_predictive_logits_are_theirs",
        {"name": "3 classes, few features", "covariance": "class_block"},
    ),
    Break(
        "NUTS",
        "the labels' pull is halved",
        "bayes_clip.gaussian.full.Full.condition",
        half_a_step,
        NUTS,
        {"engine": "ekf, full", "name": NARROW},
    ),
    Break(
        "NUTS",
        "the prior is twice as wide as the chain's",
        "bayes_clip.inference.laplace._full",
        with_prior(2.0),
        NUTS,
        {"engine": "laplace, full", "name": NARROW},
    ),
]


@pytest.mark.parametrize("case", BREAKS, ids=str)
def test_the_check_notices(case: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    if "laplace_torch" in case.check:
        pytest.importorskip(
            "laplace", reason="laplace-torch is not installed; it comes with the extra [test]"
        )
    case.run()
    monkeypatch.setattr(case.target, case.instead(resolve_name(case.target)))
    with pytest.raises(AssertionError):
        case.run()


def test_every_identity_is_broken_at_least_once() -> None:
    """The list of identities that the tests promise; a new one belongs here and in BREAKS."""
    promised = {
        "linear-Gaussian closed form",
        "Pyro's GaussianHMM",
        "batch = sequential",
        "order invariance for Q = 0",
        "relinearisation invariance",
        "one batch iterated = MAP and Laplace",
        "smoother = joint Gaussian",
        "class permutation",
        "a constant added to all logits",
        "low rank at full rank = full",
        "Kronecker on Kronecker data = full",
        "laplace-torch",
        "NUTS",
    }
    assert {case.identity for case in BREAKS} == promised
