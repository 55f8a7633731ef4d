from __future__ import annotations

import pytest
import torch
from pyro.distributions import Laplace, Normal
from small_problems import assert_near
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.inference.head import linear_head
from bayes_clip.model import AdapterModel, Context

TEXT = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
CONTEXT = Context(TEXT.double(), ("a", "b", "c"), 20.0)
INPUTS = torch.randn(6, 4, dtype=torch.float64)


class Probe(AdapterModel):
    """A linear probe with a prior variance that grows with the feature, and inputs squared."""

    def prior(self) -> dict[str, Normal]:
        width = self.prior_variance**0.5 * torch.arange(1.0, 5.0, dtype=torch.float64)
        return {"weights": Normal(self.text_features, width.expand(3, 4)).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return self.logit_scale * inputs.square() @ weights["weights"].mT


class TwoSites(Probe):
    def prior(self) -> dict[str, Normal]:
        return {**super().prior(), "bias": Normal(torch.zeros(3), 1.0).to_event(1)}


class NotNormal(Probe):
    def prior(self) -> dict[str, Laplace]:
        return {"weights": Laplace(self.text_features, torch.ones(3, 4)).to_event(2)}


class NotLinear(Probe):
    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return torch.tanh(inputs @ weights["weights"].mT)


class OneMatrixPerClass(Probe):
    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return inputs @ weights["weights"].mT * torch.tensor([1.0, 2.0, 3.0])


def test_prior_and_design_are_read_from_the_program() -> None:
    head = linear_head(Probe(CONTEXT, 0.25), INPUTS)
    assert head.site == "weights"
    assert_near(head.prior_mean, TEXT.double())
    assert_near(head.prior_variance, 0.25 * torch.arange(1.0, 5.0).double().square().expand(3, 4))
    assert_near(head.design(INPUTS), 20 * INPUTS.square())


@pytest.mark.parametrize("program", [TwoSites, NotNormal, NotLinear, OneMatrixPerClass])
def test_a_program_that_is_no_linear_head_is_refused_by_name(program: type[AdapterModel]) -> None:
    with pytest.raises(UserError, match=f"^{program.__name__}: .*this version fits linear heads") as refusal:
        linear_head(program(CONTEXT, 1.0), INPUTS)
    assert "\n" not in str(refusal.value)
