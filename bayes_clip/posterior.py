"""The result of every engine: a Pyro guide that predicts, explains its doubt, and can be saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro.distributions import (
    Delta,
    Empirical,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    TorchDistribution,
)
from pyro.infer.autoguide import AutoContinuous
from torch import Tensor

from bayes_clip.data.rows import Rows
from bayes_clip.distributions import Drawn
from bayes_clip.errors import UserError
from bayes_clip.gaussian import ClassBlock, Diagonal, Full, Kronecker, LowRankPrecision, VariationalDiagonal
from bayes_clip.gaussian.noise import keys_of
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference.engines import Weights
from bayes_clip.inference.program import read_program
from bayes_clip.inference.program_logits import ProgramLogits, Seen
from bayes_clip.inference.stream import Stream
from bayes_clip.inputs import inputs_of
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within
from bayes_clip.model import AdapterModel
from bayes_clip.observation import SOFTMAX
from bayes_clip.precision import full_precision
from bayes_clip.predictive import (
    DRAWN,
    MONTE_CARLO_DRAWS,
    SPLIT_DRAWS,
    Prediction,
    average_entropy,
    average_softmax,
    closed_form,
    entropy,
)
from bayes_clip.progress import track
from bayes_clip.randomness import own_random_numbers
from bayes_clip.settings import FitSettings

MANY_NUMBERS = 2**24  # probabilities, above which they are kept in the dtype of the weights
IN_FLOAT64 = 6  # numbers for each class of a row: moments and probabilities, and what the closed form makes


@dataclass(frozen=True)
class Source:
    """Where a posterior comes from: enough to refuse a wrong input and to repeat the fit."""

    settings: FitSettings
    task: str
    backbone: str | None  # fingerprint of the encoder; None for bare features
    shots: int | None
    seed: int | None
    support_rows: int
    prior_variance: float
    covariance_scale: float
    label_counts: tuple[int, ...] = ()  # (C,) of the support set, where predictions take them out again


class Posterior(AutoContinuous):
    """What is known of the weights after the labels; a guide for the model program it was fitted with.

    ``Predictive(posterior.program, guide=posterior, num_samples=S)(inputs)`` works for every engine; for
    people, `predict` does it faster and says more. Gaussian (ekf, laplace, vi), a point (zero_shot, map, sgd)
    or draws (nuts): see `weights`.
    """

    def __init__(
        self, model: AdapterModel, weights: Weights, source: Source, stream: Stream | None = None
    ) -> None:
        super().__init__(model)
        self._program = (model,)  # a tuple, so that Pyro does not wrap it
        self.weights = weights
        self.source = source
        self.stream = stream  # what `update` needs; None for engines that do not stream
        like = weights.mean
        width = model.width
        probe = torch.full((1, width), width**-0.5).to(like)
        self.logits = ProgramLogits(read_program(model, probe), weights)
        # The prototype needs the labels to be observed: Pyro's guides take no discrete latent.
        # It draws weights; the caller's random numbers stay where they were.
        with own_random_numbers(like.device):
            self._setup_prototype(probe, torch.zeros(1, dtype=torch.long, device=like.device))

    def get_posterior(self, *args: Any, **kwargs: Any) -> TorchDistribution:
        """The distribution over the flat weights, site after site; classes outermost for a linear head."""
        weights = self.weights
        if isinstance(weights, ClassBlock):
            blocks = MultivariateNormal(weights.mean, weights.covariance)
            return Flattened(Independent(blocks, 1))
        if isinstance(weights, Diagonal | VariationalDiagonal):
            return Normal(weights.mean.reshape(-1), weights.variance.sqrt().reshape(-1)).to_event(1)
        if isinstance(weights, Full):
            return MultivariateNormal(weights.mean.reshape(-1), weights.covariance)
        if isinstance(weights, Kronecker | LowRankPrecision):
            return Drawn(weights)
        if isinstance(weights, LowRank):
            factor = weights.factor.reshape(-1, weights.factor.shape[-1])
            return LowRankMultivariateNormal(weights.mean.reshape(-1), factor, weights.variance.reshape(-1))
        if isinstance(weights, Draws):
            flat = weights.samples.flatten(1)
            return Empirical(flat, torch.zeros(len(flat)).to(flat))
        return Delta(weights.mean.reshape(-1), event_dim=1)

    @property
    def program(self) -> AdapterModel:
        """The model program: the Pyro model that this is a guide for."""
        return self._program[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return self.program.class_names

    @property
    def class_offset(self) -> Tensor | None:
        """What predictions add to the logits of the classes (C,), float64; None where they add nothing.

        Labels of classes in unequal numbers n teach those frequencies along with the rest. With the class
        prior "even" they are divided out again, by Bayes' rule for another class prior: p(y | x) / n(y), of
        mean logarithm zero (Saerens et al. 2002; the "logit adjustment" of Menon et al., ICLR 2021, at the
        strength of Bayes' rule). A class without labels counts as one with one.
        """
        counts = torch.tensor(self.source.label_counts, dtype=torch.float64).clamp_min(1)
        if len(counts) != len(self.class_names) or bool((counts == counts[0]).all()):
            return None
        return counts.log().mean() - counts.log()

    @property
    def is_point(self) -> bool:
        """Whether it is a point estimate, without any doubt about the weights."""
        return isinstance(self.weights, Point)

    @property
    def predictive(self) -> str:
        """How probabilities are made: plug_in, monte_carlo, or closed_form with its covariance scale."""
        asked = self.source.settings.predictive
        if self.is_point or asked == "plug_in":
            return "plug_in"
        if asked == "monte_carlo" or isinstance(self.weights, Draws):
            return "monte_carlo"
        scale = 1.0 if asked == "closed_form" else self.source.covariance_scale
        return "plug_in" if scale == 0 else f"closed_form x{scale:g}"

    @property
    def novelty_score(self) -> str:
        """What `Prediction.novelty` is here."""
        return (
            "one minus the largest probability"
            if self.is_point
            else "variance minus mean of the winning logit"
        )

    @torch.no_grad()
    @full_precision()
    def predict(self, rows: Tensor | Rows, budget: int = WORKING_BYTES) -> Prediction:
        """Probabilities, doubt and novelty for inputs (N, F), or the rows of a task or feature file.

        Features (N, D) of a program that takes unit rows are scaled to unit length. One that takes raw or
        pooled features or pixels makes them of `Rows`; a bare tensor must be what it takes. Rows are worked
        on by as many at once as `budget` bytes hold. What is said of a row does not depend on the others, but
        for rounding.

        Raises:
            UserError: another number of features than the posterior was fitted with, NaN or zero rows, or no
                pictures where the program takes them.
        """
        inputs = self._inputs(rows)
        classes, size = len(self.class_names), self.weights.mean.element_size()
        row_bytes = size * (self.logits.row_numbers + DRAWN * classes) + 8 * IN_FLOAT64 * classes
        many = len(inputs) * classes > MANY_NUMBERS

        def said(part: Tensor) -> tuple[Tensor, ...]:
            return tuple(vars(self._predict_chunk(self._unit(part), many, budget)).values())

        fields = by_rows(
            said, inputs, rows_within(budget, row_bytes), lambda starts: track(starts, "Predicting")
        )
        return Prediction(*fields)

    def _predict_chunk(self, rows: Tensor, many: bool, budget: int) -> Prediction:
        logits, keys = self.logits.predicted_logits(rows), keys_of(rows)
        offset = self.class_offset
        if offset is not None:
            logits = Seen(logits, SOFTMAX, offset.to(rows))
        mean, variance = logits.mean, logits.variance
        kind = self.predictive
        if kind == "plug_in":
            probabilities = mean.double().softmax(-1)
        elif kind == "monte_carlo":
            probabilities = average_softmax(logits, keys, MONTE_CARLO_DRAWS, budget).double()
        else:
            scale = 1.0 if self.source.settings.predictive == "closed_form" else self.source.covariance_scale
            probabilities = closed_form(mean.double(), scale * variance.double(), budget)
        if self.is_point:
            aleatoric, epistemic = entropy(probabilities), torch.zeros_like(probabilities[:, 0])
            novelty = 1 - probabilities.amax(-1)
        else:
            aleatoric, epistemic = average_entropy(logits, keys, SPLIT_DRAWS, budget)
            novelty = (variance - mean).gather(1, probabilities.argmax(-1, keepdim=True))[:, 0]
        if many:
            probabilities = probabilities.clamp_min_(torch.finfo(torch.float32).tiny).to(mean.dtype)
        said = (probabilities, aleatoric, epistemic, novelty, mean, variance)
        return Prediction(*(tensor.cpu() for tensor in said))

    def as_inputs(self, rows: Tensor | Rows) -> Tensor:
        """Inputs as the program takes them; see `predict`."""
        return self._unit(self._inputs(rows))

    def _inputs(self, rows: Tensor | Rows) -> Tensor:
        program = self.program
        inputs = inputs_of(type(program), program.context, rows) if isinstance(rows, Rows) else rows
        self._check(inputs)
        return inputs

    def _check(self, features: Tensor) -> None:
        expected = self.program.width
        if features.ndim != 2 or features.shape[1] != expected:
            raise UserError(
                f"features of shape {tuple(features.shape)}: this posterior takes (N, {expected}); "
                "encode the images with the backbone it was fitted with"
            )
        norms = features.norm(dim=-1)
        broken = ~(norms.isfinite() & (norms > 0))
        if broken.any():
            raise UserError(f"features row {int(broken.nonzero()[0])} is zero, NaN or infinite; drop it")

    def _unit(self, features: Tensor) -> Tensor:
        """Rows as the program takes them, in the dtype and on the device of the weights."""
        rows = features.to(self.weights.mean)
        return rows / rows.norm(dim=-1, keepdim=True) if self.program.takes == "unit" else rows

    def save(self, folder: Path | str) -> None:
        """Write it to a folder that `load_posterior` reads (safetensors and JSON)."""
        from bayes_clip.storage.folder import save_posterior

        save_posterior(self, folder)

    def __repr__(self) -> str:
        source = self.source
        classes, features = self.program.text_features.shape
        return (
            f"Posterior({source.settings.engine} on {source.task!r}: {classes} classes, {features} features, "
            f"{source.support_rows} labels, v={source.prior_variance:.3g}, {self.predictive})"
        )


class Flattened(TorchDistribution):
    """A distribution over (C, D) weights seen as one over (C D,) flat weights."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type torch asks for
    has_rsample = True

    def __init__(self, base: TorchDistribution) -> None:
        self.base = base
        size = base.event_shape.numel()
        super().__init__(base.batch_shape, torch.Size([size]), validate_args=False)

    @property
    def support(self) -> Any:
        return torch.distributions.constraints.real_vector

    @property
    def mean(self) -> Tensor:
        return self.base.mean.flatten(-2)

    @property
    def variance(self) -> Tensor:
        return self.base.variance.flatten(-2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base.rsample(torch.Size(sample_shape)).flatten(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value.unflatten(-1, self.base.event_shape))
