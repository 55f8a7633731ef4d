"""The model with time written out: its density, its names, and its mode against the smoother."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from joint_gaussian import given_observations, joint_prior
from naive_twins import jacobian
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from small_problems import SmallProblem, assert_near, problem_of, small_problem, tiny_task
from torch import Tensor
from torch.autograd.functional import hessian as hessian_of
from torch.autograd.functional import jacobian as jacobian_of

from bayes_clip.errors import UserError
from bayes_clip.inference import kalman
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.smoother import run_and_smooth
from bayes_clip.model import context_of, find_model
from bayes_clip.state_space import StateSpace
from bayes_clip.unrolled import Unrolled, unroll

SPACE = StateSpace(0.9, 0.3)


def head(problem: SmallProblem, observed: Callable[[Tensor], dist.Distribution]) -> Callable[..., Tensor]:
    """A plain Pyro function: one site of class weights, and an observation of the logits."""

    def model(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        weights = pyro.sample("weights", dist.Normal(problem.mean, problem.variance.sqrt()).to_event(2))
        with pyro.plate("data", len(inputs)):
            return pyro.sample("labels", observed(inputs @ weights.mT), obs=labels)

    return model


def softmax(logits: Tensor) -> dist.Distribution:
    return dist.Categorical(logits=logits)


def gaussian(logits: Tensor) -> dist.Distribution:
    return dist.Normal(logits, 0.5).to_event(1)


def log_density(
    model: Unrolled, name: str, weights: Tensor, inputs: list[Tensor], labels: list[Tensor]
) -> Tensor:
    values = {f"{name}_{step}": one for step, one in enumerate(weights)}
    trace = poutine.trace(poutine.condition(model, data=values)).get_trace(inputs, labels)
    return trace.log_prob_sum()


def dense_prior(problem: SmallProblem, space: StateSpace, steps: int):  # type: ignore[no-untyped-def]
    mean, variance = problem.mean.reshape(-1), problem.variance.reshape(-1)
    return joint_prior(mean, variance, torch.full_like(mean, space.decay), space.noise * variance, steps)


def split(problem: SmallProblem, size: int) -> tuple[list[Tensor], list[Tensor]]:
    return list(problem.design.split(size)), list(problem.labels.split(size))


def test_the_density_is_the_dense_joint_gaussian_times_the_likelihood() -> None:
    problem = small_problem(classes=3, features=4, rows=10)
    inputs, labels = split(problem, 4)  # batches of 4, 4 and 2
    model = unroll(head(problem, softmax), SPACE, 3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        weights = torch.randn(3, 3, 4, generator=generator, dtype=torch.float64)
        likelihood = sum(
            (one @ theta.mT).log_softmax(-1)[range(len(own)), own].sum()
            for one, theta, own in zip(inputs, weights, labels, strict=True)
        )
        wanted = dense_prior(problem, SPACE, 3).log_density(weights) + likelihood
        assert_near(log_density(model, "weights", weights, inputs, labels), wanted)


def test_a_model_program_unrolls_with_its_sites_named_by_step() -> None:
    task = tiny_task(classes=3, features=4, shots=2)
    problem = replace(problem_of(task, 0.3), design=task.support_features.double())
    program = find_model("linear_probe")(
        context_of(problem.mean, task.class_names, task.logit_scale, 4), prior_variance=0.3
    )
    model = unroll(program, StateSpace(0.8), 2)
    inputs, labels = split(problem, 3)
    trace = poutine.trace(model).get_trace(inputs, labels)
    names = [name for name, site in trace.nodes.items() if site["type"] == "sample"]
    assert [name for name in names if "data" not in name] == [
        "class_weights_0",
        "labels_0",
        "class_weights_1",
        "labels_1",
    ]
    assert trace.nodes["labels_1"]["is_observed"] and not trace.nodes["class_weights_1"]["is_observed"]
    weights = torch.stack([trace.nodes[f"class_weights_{step}"]["value"] for step in range(2)])
    prior = dense_prior(problem, StateSpace(0.8), 2).log_density(weights)
    likelihood = sum(trace.nodes[f"labels_{step}"]["fn"].log_prob(labels[step]).sum() for step in range(2))
    assert_near(trace.log_prob_sum(), prior + likelihood)


def test_without_labels_they_are_drawn() -> None:
    problem = small_problem(rows=6)
    pyro.set_rng_seed(0)
    inputs, _ = split(problem, 3)
    drawn = unroll(head(problem, softmax), SPACE, 2)(inputs)
    assert [one.shape for one in drawn] == [(3,), (3,)]


def mode_of(
    model: Unrolled, inputs: list[Tensor], labels: list[Tensor], start: Tensor
) -> tuple[Tensor, Tensor]:
    """Newton to the mode of all steps' weights, and the inverse Hessian there."""

    def loss(flat: Tensor) -> Tensor:
        return -log_density(model, "weights", flat.reshape(start.shape), inputs, labels)

    flat = start.reshape(-1)
    for _ in range(8):
        hessian, gradient = hessian_of(loss, flat), jacobian_of(loss, flat)
        flat = flat - torch.linalg.solve(hessian, gradient)
    return flat.reshape(start.shape), torch.linalg.inv(hessian)


def test_with_gaussian_observations_the_mode_is_the_joint_gaussians_mean() -> None:
    problem = small_problem(classes=2, features=3, rows=6)
    values = problem.logits + 1.0
    inputs, shown = list(problem.design.split(2)), list(values.split(2))
    mode, covariance = mode_of(
        unroll(head(problem, gaussian), SPACE, 3), inputs, shown, problem.mean.repeat(3, 1, 1)
    )
    rows = [jacobian(one, 2).reshape(-1, 6) for one in inputs]
    wanted = given_observations(
        dense_prior(problem, SPACE, 3), rows, [one.reshape(-1) for one in shown], 0.25
    )
    assert_near(mode.reshape(-1), wanted.mean)
    assert_near(covariance, wanted.covariance)


def test_the_smoother_is_near_the_mode_where_the_posterior_is_near_gaussian() -> None:
    """Softmax labels: the narrower the prior, the closer smoothed means and deviations are to Laplace's."""
    distances = [smoother_against_mode(variance) for variance in (0.2, 0.02)]
    assert distances[0][0] < 0.1 and distances[0][1] < 0.05  # standard deviations; shares of a deviation
    assert distances[1][0] < 0.01 and distances[1][1] < 0.005


def smoother_against_mode(variance: float) -> tuple[float, float]:
    problem = small_problem(classes=3, features=3, rows=12, variance=variance)
    inputs, labels = split(problem, 3)
    mode, covariance = mode_of(
        unroll(head(problem, softmax), SPACE, 4), inputs, labels, problem.mean.repeat(4, 1, 1)
    )
    data = [Batch(*batch) for batch in zip(inputs, labels, strict=True)]
    state = kalman.init(problem.mean, problem.variance, "full")
    found, _ = run_and_smooth(state, data, RULES["iterated"], SPACE)
    deviation = covariance.diagonal().sqrt().reshape(mode.shape)
    spread = torch.stack([belief.covariance.diagonal().reshape(3, 3) for belief in found.beliefs])  # type: ignore[attr-defined]
    apart = float(((found.means - mode) / deviation).abs().max())
    return apart, float((spread.sqrt() / deviation - 1).abs().max())


def two_sites(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    slope = pyro.sample("slope", dist.Normal(torch.ones(2).double(), 2.0).to_event(1))
    root = torch.tensor([[1.0, 0.0], [0.5, 0.7]]).double()
    bias = pyro.sample("bias", dist.MultivariateNormal(torch.zeros(2).double(), scale_tril=root))
    with pyro.plate("data", len(inputs)):
        return pyro.sample("labels", dist.Normal(inputs * slope + bias, 0.3).to_event(1), obs=labels)


def test_each_site_has_its_own_dynamics() -> None:
    inputs = [torch.ones(2, 2).double() * step for step in range(3)]
    space = StateSpace({"bias": 0.5}, {"bias": 0.4})
    trace = poutine.trace(unroll(two_sites, space, 3)).get_trace(inputs, inputs)
    value = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
    assert torch.equal(value["slope_0"], value["slope_2"])  # static: deterministic after the first step
    assert float(trace.nodes["slope_1"]["fn"].log_prob(value["slope_1"])) == 0
    moved = trace.nodes["bias_2"]["fn"]
    assert_near(moved.mean, 0.5 * value["bias_1"])
    root = torch.tensor([[1.0, 0.0], [0.5, 0.7]]).double()
    assert_near(moved.covariance_matrix, 0.4 * root @ root.mT)
    with pytest.raises(UserError, match=r"--decay bais: .*Did you mean 'bias'"):
        unroll(two_sites, StateSpace({"bais": 0.5}), 2)(inputs[:2])


def test_svi_and_nuts_take_the_unrolled_model() -> None:
    problem = small_problem(classes=2, features=2, rows=4, variance=0.2)
    inputs, labels = split(problem, 2)
    model = unroll(head(problem, softmax), SPACE, 2)
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    guide = AutoNormal(model)
    svi = SVI(
        model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(num_particles=2, vectorize_particles=True)
    )
    losses = [svi.step(inputs, labels) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert guide.median()["weights_1"].shape == (2, 2)
    chain = MCMC(NUTS(model), num_samples=5, warmup_steps=5, disable_progbar=True)
    chain.run(inputs, labels)
    assert set(chain.get_samples()) == {"weights_0", "weights_1"}
    pyro.clear_param_store()


def laplace_site(inputs: Tensor, labels: Tensor | None = None) -> None:
    pyro.sample("scale", dist.Laplace(0.0, 1.0))


def hierarchical(inputs: Tensor, labels: Tensor | None = None) -> None:
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    pyro.sample("weights", dist.Normal(centre, 1.0))


def test_what_cannot_be_unrolled_is_refused_by_site() -> None:
    inputs = [torch.zeros(1, 2)] * 2
    with pytest.raises(UserError, match="site 'scale' is Laplace"):
        unroll(laplace_site, SPACE, 2)(inputs, inputs)
    with pytest.raises(UserError, match="prior of site 'weights' is not the same at every step"):
        unroll(hierarchical, SPACE, 2)(inputs, inputs)
    with pytest.raises(UserError, match="must return those it drew"):
        unroll(hierarchical, SPACE, 2)(inputs)
    with pytest.raises(UserError, match="0 steps"):
        unroll(two_sites, SPACE, 0)
    with pytest.raises(UserError, match="3 steps need as many batches"):
        unroll(two_sites, SPACE, 3)(inputs)
