"""The Laplace engine: the posterior mode, and the Gauss-Newton covariance there.

For a linear head the generalised Gauss-Newton matrix is the Hessian, so the only approximation of `full` is
the Gaussian itself. `class_block` keeps the diagonal blocks of that covariance; `diagonal` inverts the
diagonal of the precision; `kronecker` takes curvature and features as unrelated (K-FAC).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayes_clip.curvature import SoftmaxCurvature
from bayes_clip.errors import UserError
from bayes_clip.gaussian import Belief, ClassBlock, Diagonal, Full, Kronecker
from bayes_clip.gaussian.matrices import symmetric
from bayes_clip.inference.batches import batches
from bayes_clip.inference.program import Program
from bayes_clip.progress import track

MOST_JOINT_ROWS = 4096
ROWS_PER_FEATURE = 1.5  # up to here the rows' logits are a cheaper space for it than the weights
BYTES_PER_CHUNK = 2**26  # of Jacobians


def laplace(covariance: str, design: Tensor, labels: Tensor, mode: Tensor, prior_variance: Tensor) -> Belief:
    """Gaussian at `mode` (C, D) with the curvature of all rows there; `design` (N, D), `labels` (N,).

    The rows' curvature depends on the mode alone; labels only balance the batches of large problems.
    """
    probabilities = (design @ mode.mT).double().softmax(-1)
    if covariance == "diagonal":
        own = probabilities * (1 - probabilities)
        precision = 1 / prior_variance.double() + own.mT @ design.double().square()
        return Diagonal(mode, (1 / precision).to(mode))
    if covariance == "full":
        return _full(design, mode, prior_variance, probabilities)
    if covariance == "kronecker":
        return _kronecker(design, mode, prior_variance, probabilities)
    if len(design) <= MOST_JOINT_ROWS:
        return _joint_blocks(design, mode, prior_variance, probabilities)
    return _streamed_blocks(design, labels, mode, prior_variance, probabilities)


def laplace_of_program(covariance: str, program: Program, inputs: Tensor, mode: Tensor) -> Belief:
    """Gauss-Newton Laplace of any program at `mode`: precision P₀⁻¹ + Σ Jᵀ R J over the rows, in float64.

    `full` inverts it; `diagonal` inverts its diagonal; `class_block`, for a head whose outputs are observed
    independently, inverts its blocks.

    Raises:
        UserError: `kronecker`, which is there for a softmax alone.
    """
    if covariance == "kronecker":
        raise UserError(
            f"{program.name}: laplace with --covariance kronecker needs a linear head under a Categorical; "
            "use full or diagonal"
        )
    if covariance == "class_block":
        return _separate_blocks(program, inputs, mode)
    size = mode.numel()
    precision = (1 / program.prior_variance.double()).reshape(-1)
    if covariance == "full":
        precision = torch.diag(precision)
    rows = max(1, BYTES_PER_CHUNK // (8 * program.outputs * size))
    for part in inputs.split(rows):
        design = program.linearise(part, mode)[0].double()
        curvature = program.observation.curvature(program.logits(mode, part).double()).dense()
        if design.ndim == 2:  # a head: its Jacobian has a block for every class
            design = torch.einsum("nd,ck->nckd", design, torch.eye(len(mode)).to(design)).flatten(2)
        weighted = torch.einsum("nij,njp->nip", curvature, design)
        if covariance == "full":
            precision += torch.einsum("nip,niq->pq", design, weighted)
        else:
            precision += (design * weighted).sum((0, 1))
    if covariance == "full":
        return Full(mode, torch.cholesky_inverse(torch.linalg.cholesky(precision)).to(mode))
    return Diagonal(mode, (1 / precision).reshape(mode.shape).to(mode))


def _separate_blocks(program: Program, inputs: Tensor, mode: Tensor) -> ClassBlock:
    design = program.design(inputs).double()
    own = program.observation.curvature(design @ mode.double().mT).own
    precision = torch.diag_embed(1 / program.prior_variance.double())
    precision += torch.stack([(design.mT * weight) @ design for weight in own.mT])
    return ClassBlock(mode, torch.cholesky_inverse(torch.linalg.cholesky(precision)).to(mode))


def _full(design: Tensor, mode: Tensor, prior_variance: Tensor, probabilities: Tensor) -> Full:
    curvature = SoftmaxCurvature(probabilities).dense()
    rows = design.double()
    precision = torch.einsum("nij,nd,ne->idje", curvature, rows, rows).reshape(mode.numel(), mode.numel())
    precision.diagonal().add_(1 / prior_variance.double().reshape(-1))
    return Full(mode, torch.cholesky_inverse(torch.linalg.cholesky(precision)).to(mode))


def _kronecker(design: Tensor, mode: Tensor, prior_variance: Tensor, probabilities: Tensor) -> Kronecker:
    curvature = torch.diag(probabilities.sum(0)) - probabilities.mT @ probabilities
    rows = design.double()
    count = torch.full_like(curvature[0, 0], len(rows))
    return Kronecker.from_moments(mode, prior_variance, curvature, rows.mT @ rows, count)


def _joint_blocks(design: Tensor, mode: Tensor, prior_variance: Tensor, probabilities: Tensor) -> ClassBlock:
    """Diagonal blocks of the coupled posterior covariance, exactly.

    The precision is blockdiag(Λ_c) − U Uᵀ with Λ_c = P₀⁻¹ + Φᵀ D_c Φ and U the stacked Φᵀ D_c, so block c of
    its inverse is Λ_c⁻¹ + Tᵀ M⁻¹ T with T = D_c Φ Λ_c⁻¹ (N, D) and M = Σ_c (D_c − D_c Φ Λ_c⁻¹ Φᵀ D_c). M is
    found in float64, for the classes nearly cancel in it.
    """
    shared = probabilities.new_zeros(len(design), len(design))
    few = len(design) <= ROWS_PER_FEATURE * design.shape[1]
    separate = _separate_by_rows(design) if few else _separate_by_features(design)
    cross, blocks = [], torch.empty(*mode.shape, mode.shape[1], dtype=mode.dtype, device=mode.device)
    for index, weight in enumerate(track(probabilities.mT, "Laplace covariance")):
        blocks[index], tied, remaining = separate(weight, prior_variance[index].double())
        shared += remaining
        cross.append(tied.to(mode))
    factor = torch.linalg.cholesky(shared).to(mode)
    for index, tied in enumerate(cross):
        half = torch.linalg.solve_triangular(factor, tied, upper=False)
        blocks[index].addmm_(half.mT, half)
    return ClassBlock(mode, blocks)


def _separate_by_features(design: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Weight (N,) and prior variance (D,) of a class -> Λ⁻¹ (D, D), T (N, D) and D − D Φ Λ⁻¹ Φᵀ D (N, N)."""
    rows = design.double()

    def separate(weight: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weighted = weight[:, None] * rows
        precision = weighted.mT @ rows
        precision.diagonal().add_(1 / variance)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        tied = weighted @ inverse
        return inverse, tied, torch.diag(weight) - tied @ weighted.mT

    return separate


def _separate_by_rows(design: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The same through the rows' logits, for few rows: with E = (D⁻¹ + Φ P₀ Φᵀ)⁻¹ it is P₀ − P₀ Φᵀ E Φ P₀,
    E Φ P₀ and E. E is found in float64, its products with the design in the design's precision.
    """
    rows = design.double()
    gram = rows @ rows.mT

    def separate(weight: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        root = weight.sqrt()
        even = (variance == variance[0]).all()
        inner = root[:, None] * (variance[0] * gram if even else (rows * variance) @ rows.mT) * root
        inner.diagonal().add_(1)
        remaining = root[:, None] * torch.cholesky_inverse(torch.linalg.cholesky(inner)) * root
        scaled = design * variance.to(design)
        tied = remaining.to(design) @ scaled
        inverse = -symmetric(scaled.mT @ tied)
        inverse.diagonal().add_(variance.to(design))
        return inverse, tied, remaining

    return separate


def _streamed_blocks(
    design: Tensor, labels: Tensor, mode: Tensor, prior_variance: Tensor, probabilities: Tensor
) -> ClassBlock:
    """The same batch after batch, projected to its blocks after each: approximate, for many rows."""
    belief = ClassBlock.from_prior(mode, prior_variance)
    still = torch.zeros_like(probabilities[:1])
    for rows in track(batches(labels, len(mode), "balanced", None, seed=0), "Laplace covariance"):
        projection = belief.project(design[rows])
        downdate = projection.gram.double().downdate(SoftmaxCurvature(probabilities[rows]))
        belief = belief.condition(projection, still.expand(len(rows), -1).to(mode), downdate.to(mode))
    return belief
