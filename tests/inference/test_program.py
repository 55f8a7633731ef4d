"""Programs of any shape: heads are recognised, Jacobians are right, and the filter meets the batch mode."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive
from small_problems import assert_near, tiny_task
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.gaussian import Full
from bayes_clip.inference import kalman, program, stream
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.program_mode import mode_of_program
from bayes_clip.inference.rules import RULES
from bayes_clip.model import AdapterModel, Context, as_program, find_model
from bayes_clip.settings import FitSettings

TEXT = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
CONTEXT = Context(TEXT.double(), ("a", "b", "c"), 20.0)
INPUTS = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(9) % 3


class Probe(AdapterModel):
    """A linear probe with a prior variance that grows with the feature, and inputs squared."""

    def prior(self) -> dict[str, dist.Normal]:
        width = self.prior_variance**0.5 * torch.arange(1.0, 5.0).to(self.text_features)
        return {"weights": dist.Normal(self.text_features, width.expand(3, 4)).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return self.logit_scale * inputs.square() @ weights["weights"].mT


class WithBias(Probe):
    """Linear, but no head: two sites."""

    def prior(self) -> dict[str, dist.Normal]:
        return {
            **super().prior(),
            "bias": dist.Normal(torch.zeros(3).to(self.text_features), 1.0).to_event(1),
        }

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return super().logits(weights, inputs) + weights["bias"].unsqueeze(-2)


class OneMatrixPerClass(Probe):
    """Linear with a Jacobian that differs between the classes."""

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return inputs @ weights["weights"].mT * torch.tensor([1.0, 2.0, 3.0]).to(inputs)


class Adapter(AdapterModel):
    """A small residual network on the features: not linear in its two sites."""

    def prior(self) -> dict[str, dist.Normal]:
        width, like = self.prior_variance**0.5, self.text_features
        first = torch.linspace(-1, 1, 2 * like.shape[1]).to(like).reshape(2, -1)
        return {
            "down": dist.Normal(first, width).to_event(2),
            "up": dist.Normal(torch.zeros(like.shape[1], 2).to(like), width).to_event(2),
        }

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        hidden = torch.tanh(inputs @ weights["down"].mT) @ weights["up"].mT
        adapted = torch.nn.functional.normalize(inputs + hidden, dim=-1)
        return self.logit_scale * adapted @ self.text_features.mT


def plain_function(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    weights = pyro.sample("weights", dist.Normal(CONTEXT.text_features.to(inputs), 0.3).to_event(2))
    with pyro.plate("data", len(inputs)):
        return pyro.sample("labels", dist.Categorical(logits=5 * inputs @ weights.mT), obs=labels)


def one_switch(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    weights = pyro.sample("weights", dist.Normal(torch.zeros(inputs.shape[-1]).to(inputs), 2.0).to_event(1))
    observed = None if labels is None else labels.to(inputs)
    with pyro.plate("data", len(inputs)):
        return pyro.sample("labels", dist.Bernoulli(logits=4 * inputs @ weights), obs=observed)


def values(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    """Least squares on one-hot labels."""
    shape = (3, inputs.shape[-1])
    weights = pyro.sample("weights", dist.Normal(torch.zeros(shape).to(inputs), 1.0).to_event(2))
    targets = None if labels is None else torch.eye(3).to(inputs)[labels]
    with pyro.plate("data", len(inputs)):
        return pyro.sample("labels", dist.Normal(inputs @ weights.mT, 0.4).to_event(1), obs=targets)


def read(kind: type[AdapterModel], variance: float = 0.25) -> Program:
    return read_program(kind(CONTEXT, variance), INPUTS)


def log_joint(program: Program, flat: Tensor) -> Tensor:
    likelihood = program.observation.log_likelihood(program.logits(flat, INPUTS), LABELS).sum()
    return likelihood - ((flat - program.prior_mean).square() / program.prior_variance).sum() / 2


def test_a_head_is_recognised_with_its_prior_and_design() -> None:
    head = read(Probe)
    assert head.is_head and head.is_linear and [site.name for site in head.sites] == ["weights"]
    assert_near(head.prior_mean, TEXT.double())
    assert_near(head.prior_variance, 0.25 * torch.arange(1.0, 5.0).double().square().expand(3, 4))
    assert_near(head.design(INPUTS), 20 * INPUTS.square())


def test_a_head_is_recognised_in_a_plain_function_too() -> None:
    """Its trace holds normalised logits, which are not linear; centred they are."""
    head = read_program(plain_function, INPUTS)
    assert head.is_head
    assert_near(head.design(INPUTS), 5 * INPUTS)


@pytest.mark.parametrize("kind", [WithBias, OneMatrixPerClass])
def test_linear_programs_that_are_no_head_have_an_exact_jacobian(kind: type[AdapterModel]) -> None:
    program = read(kind)
    assert program.is_linear and not program.is_head
    design, offset = program.linearise(INPUTS, program.prior_mean)
    weights = torch.randn(len(program.prior_mean), dtype=torch.float64)
    assert_near(torch.einsum("bkp,p->bk", design, weights) + offset, program.logits(weights, INPUTS))


def test_the_jacobian_is_that_of_finite_differences() -> None:
    program = read(Adapter)
    assert not program.is_linear
    at = program.prior_mean + 0.3 * torch.randn(16, generator=torch.Generator().manual_seed(2)).double()
    design, offset = program.linearise(INPUTS, at)
    for index in range(16):
        step = torch.zeros(16, dtype=torch.float64)
        step[index] = 1e-6
        slope = (program.logits(at + step, INPUTS) - program.logits(at - step, INPUTS)) / 2e-6
        assert_near(design[:, :, index], slope, 1e-6)
    assert_near(torch.einsum("bkp,p->bk", design, at) + offset, program.logits(at, INPUTS))


def test_forward_mode_in_chunks_is_backward_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few weights and many outputs are differentiated forwards; chunks by memory change nothing."""

    def few_weights(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        angle = pyro.sample("angle", dist.Normal(torch.zeros(2).to(inputs), 1.0).to_event(1))
        logits = torch.tanh(inputs[:, :3] * angle[0] + angle[1])
        with pyro.plate("data", len(inputs)):
            return pyro.sample("labels", dist.Categorical(logits=logits), obs=labels)

    program_ = read_program(few_weights, INPUTS)
    whole, _ = program_.linearise(INPUTS, program_.prior_mean + 0.2)
    assert whole.shape == (9, 3, 2)
    monkeypatch.setattr(program, "BYTES_PER_CHUNK", 1)
    parts, _ = read_program(few_weights, INPUTS).linearise(INPUTS, program_.prior_mean + 0.2)
    assert_near(parts, whole)
    backwards = torch.func.vmap(
        torch.func.jacrev(lambda flat, one: program_.logits(flat, one[None])[0]), in_dims=(None, 0)
    )(program_.prior_mean + 0.2, INPUTS)
    assert_near(whole, backwards)


@pytest.mark.parametrize("kind", [WithBias, Adapter, as_program(plain_function)])
def test_one_iterated_batch_is_the_mode_with_the_gauss_newton_covariance(kind: type[AdapterModel]) -> None:
    program = read(kind, 0.01)
    batch = program.batch(INPUTS, LABELS)
    assert isinstance(batch, Batch) == program.is_linear
    flat = program.prior_mean.reshape(-1)
    state = kalman.init(program.prior_mean, program.prior_variance, "full")
    state, _ = kalman.update(state, batch, RULES["iterated"])
    assert isinstance(state.belief, Full)
    mode = state.belief.mean

    def whole(weights: Tensor) -> Tensor:
        return log_joint(program, weights.reshape(program.prior_mean.shape))

    slope = torch.func.grad(whole)(mode.reshape(-1))
    assert float(slope.abs().max()) < 1e-7
    jacobian = torch.func.jacrev(
        lambda weights: program.logits(weights.reshape(program.prior_mean.shape), INPUTS)
    )(mode.reshape(-1))
    chance = program.logits(mode, INPUTS).softmax(-1)
    curvature = torch.diag_embed(chance) - chance[:, :, None] * chance[:, None, :]
    information = torch.einsum("bip,bij,bjq->pq", jacobian, curvature, jacobian)
    precision = torch.diag(1 / program.prior_variance.reshape(-1)) + information
    assert_near(state.belief.covariance, torch.linalg.inv(precision), 1e-8)
    found = mode_of_program(program, INPUTS, LABELS).reshape(-1)
    assert whole(found) >= whole(flat)
    assert_near(found, mode.reshape(-1), 1e-4)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_program_that_is_not_linear_learns_under_every_rule(rule: str) -> None:
    program = read(Adapter)
    state = kalman.init(program.prior_mean, program.prior_variance, "full")
    for rows in (slice(0, 6), slice(6, 9)):
        batch = program.batch(INPUTS[rows], LABELS[rows])
        state, info = kalman.update(state, batch, RULES[rule])
        assert bool(info.nis.isfinite()) and bool(info.prequential_score.isfinite())
    assert state.belief.mean.isfinite().all()
    assert (state.belief.covariance.diagonal() <= program.prior_variance + 1e-12).all()


def test_further_passes_need_linear_logits() -> None:
    program = read(Adapter)
    state = kalman.init(program.prior_mean, program.prior_variance, "full")
    with pytest.raises(UserError, match=r"--passes above 1 .*with logits that are not linear"):
        stream.run(state, [program.batch(INPUTS, LABELS)], RULES["iterated"], passes=2)


TASK = tiny_task(features=4)


@pytest.mark.parametrize("engine", ["map", "ekf", "laplace", "vi", "nuts"])
@pytest.mark.parametrize(
    "model", [WithBias, Adapter, plain_function, values], ids=lambda model: model.__name__
)
def test_every_engine_takes_every_program(
    model: object, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bayes_clip.inference.mcmc.DRAWS", 20)
    monkeypatch.setattr("bayes_clip.inference.mcmc.WARMUP", 20)
    settings = FitSettings(engine=engine, predictive="plug_in", dtype="float64")
    if isinstance(model, type):
        settings = FitSettings(engine=engine, predictive="plug_in", dtype="float64", prior_variance=0.05)
    posterior = fit(TASK, settings, program=model).posterior
    said = posterior.predict(TASK.query_features)
    accuracy = float((said.probabilities.argmax(-1) == TASK.query_labels).double().mean())
    if (engine, model) != ("vi", Adapter):  # 500 gradient steps do not get there
        assert accuracy > 0.45, f"chance is a third, and this is {accuracy}"
    assert_near(said.probabilities.sum(-1), torch.ones(len(TASK.query_labels)).double(), 1e-9)
    if engine in ("ekf", "laplace", "vi"):
        assert float(said.logit_variance.min()) > 0
        draws = Predictive(posterior.program, guide=posterior, num_samples=3)(
            TASK.query_features[:4].double()
        )
        assert draws["labels"].shape[0] == 3


@pytest.mark.parametrize("engine", ["map", "ekf", "laplace"])
def test_one_bernoulli_output_tells_two_classes_apart(engine: str) -> None:
    task = tiny_task(classes=2, features=4)
    posterior = fit(task, FitSettings(engine=engine, dtype="float64"), program=one_switch).posterior
    said = posterior.predict(task.query_features)
    assert said.probabilities.shape == (len(task.query_labels), 2)
    assert float((said.probabilities.argmax(-1) == task.query_labels).double().mean()) > 0.7


def test_a_program_with_the_wrong_number_of_outputs_is_refused() -> None:
    with pytest.raises(UserError, match="one_switch: has 1 outputs and tiny 3 classes"):
        fit(TASK, FitSettings(), program=one_switch)


def test_class_blocks_are_refused_by_name_where_there_are_no_classes_of_weights() -> None:
    with pytest.raises(UserError, match="Adapter: --covariance class_block needs a linear head"):
        fit(TASK, FitSettings(covariance="class_block", prior_variance=0.1), program=Adapter)


def test_a_function_that_writes_its_own_prior_is_not_given_another() -> None:
    with pytest.raises(UserError, match=r"--prior-variance 0\.1: plain_function writes its own prior"):
        fit(TASK, FitSettings(prior_variance=0.1), program=plain_function)


def test_a_function_in_a_file_is_a_program(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import pyro, torch\n"
        "from pyro.distributions import Categorical, Normal\n\n"
        "def model(inputs, labels=None):\n"
        "    zero = torch.zeros(3, inputs.shape[-1]).to(inputs)\n"
        "    weights = pyro.sample('w', Normal(zero, 1.0).to_event(2))\n"
        "    with pyro.plate('data', len(inputs)):\n"
        "        return pyro.sample('y', Categorical(logits=9 * inputs @ weights.mT), obs=labels)\n"
    )
    program = find_model(str(file))
    assert not program.tunes_prior
    fitted = fit(TASK, FitSettings(model=str(file)))
    fitted.posterior.save(tmp_path / "posterior")
    from bayes_clip.storage.folder import load_posterior

    again = load_posterior(tmp_path / "posterior").predict(TASK.query_features)
    assert_near(again.probabilities, fitted.posterior.predict(TASK.query_features).probabilities)


@pytest.mark.parametrize("classes", [2, 3, 40])
@pytest.mark.parametrize("budget", [2**28, 1])
def test_the_design_of_a_head_is_read_off_its_logits(
    classes: int, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More features than classes and fewer; logits that come normalised, as from a trace, and one row."""
    monkeypatch.setattr(program, "BYTES_PER_CHUNK", budget)
    features = INPUTS.shape[1]

    def head(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        prior = dist.Normal(torch.ones(classes, features).to(inputs), 1.0).to_event(2)
        weights = pyro.sample("weights", prior)
        with pyro.plate("data", len(inputs)):
            logits = 3 * inputs.cos() @ weights.mT + inputs.sum(-1, keepdim=True)
            return pyro.sample("labels", dist.Categorical(logits=logits), obs=labels)

    found = read_program(head, INPUTS)
    assert found.is_head
    for rows in (INPUTS, INPUTS[:1]):
        assert_near(found.design(rows), 3 * rows.cos())
