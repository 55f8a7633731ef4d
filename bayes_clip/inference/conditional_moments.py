"""Statistical linearisation: the best linear guess of a row's logits from its label.

Under the predicted belief logits z ~ N(z₀, G) and labels y with mean p̄ and variance S have the covariance
G A, A = E[curvature] by Stein's identity. The linear guess of z from y leaves the rest as noise, so a row
says as much as the Gaussian site exp(hᵀz − ½ zᵀWz) does: the conditional-moments filter (Tronarp,
García-Fernández & Särkkä 2018, "Iterative filtering and smoothing in nonlinear and non-Gaussian systems using
conditional moments").
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayes_clip.gaussian.gram import BlockGram, Gram
from bayes_clip.gaussian.matrices import removed, symmetric
from bayes_clip.observation import Observation, Softmax, fixed_noise

MOST_DRAWS, FEWEST_DRAWS = 4096, 256
MOST_NUMBERS = 2**23  # draws times logits of a batch
MOST_EXPLAINED = 0.9


def linearised_sites(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Site precision, (b, C) or (b, C, C) as the Gram's belief has it, and linear term (b, C) of every row.

    A row alone has the dual a = A S⁺ (y − p̄) and the downdate B = A S⁺ A, hence W = B (I − G B)⁻¹ and
    h = W z + a. For a softmax S = diag(p̄) − p̄ p̄ᵀ, and 1/p̄ serves as S⁺ since A sums to zero: a is then the
    gradient of log p̄ at the label, so that one label moves the mean as assumed-density filtering does.
    Outputs observed independently are linearised one by one. Expectations by fixed draws, 4096 of them where
    memory allows: a slope that is steep in few places of a wide belief needs them.
    """
    draws = min(max(MOST_NUMBERS // predicted.numel(), FEWEST_DRAWS), MOST_DRAWS) // 2 * 2
    samples = gram.samples(predicted, gram.deviation(), fixed_noise(draws, predicted))
    mean, slope = observation.expected_joint(samples)
    total = mean if isinstance(observation, Softmax) else mean * (1 - mean)
    weight = 1 / total.clamp_min(torch.finfo(total.dtype).tiny)
    dual = torch.einsum("bij,bj->bi", slope, weight * (observation.target(labels, predicted) - mean))
    covariance = gram.row_covariance()
    precision = _sites(gram, covariance, (slope * weight[:, None, :]) @ slope)
    logits = predicted + torch.einsum("bij,bj->bi", covariance, dual)
    return precision, gram.site_times(precision, logits) + dual


def _sites(gram: Gram, covariance: Tensor, downdate: Tensor) -> Tensor:
    """W = B (I − G B)⁻¹ of each row by itself, from G and B, both (b, C, C).

    A label explains a part of a logit's variance, never nearly all of it; what the draws say beyond
    `MOST_EXPLAINED` is their own error, and B is scaled back.
    """
    if isinstance(gram, BlockGram):
        variance, own = covariance.diagonal(dim1=1, dim2=2), downdate.diagonal(dim1=1, dim2=2)
        own = own * (MOST_EXPLAINED / (variance * own).clamp_min(MOST_EXPLAINED))
        return own / (1 - variance * own)
    root = gram.deviation()
    explained = torch.linalg.eigvalsh(symmetric(root.mT @ downdate @ root))[:, -1]
    scale = MOST_EXPLAINED / explained.clamp_min(MOST_EXPLAINED)
    return symmetric(removed(covariance, scale[:, None, None] * downdate))
