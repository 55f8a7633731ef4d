"""What each engine would have said of support rows left out, from which the prior variance is chosen.

Where there is a closed form nothing is fitted again: the mode takes two Newton steps without each fold, and
the filter's own sites are taken out of what it knew. Other engines are fitted without two folds, one after
the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayes_clip.gaussian.gram import BlockGram
from bayes_clip.inference import kalman
from bayes_clip.inference.batches import SMALLEST_BALANCED, balanced_folds, batches, shot_numbers
from bayes_clip.inference.engines import Problem, has_closed_form, infer
from bayes_clip.inference.folds import MOST_FOLDS, FoldMoments, cavity_moments, without_folds
from bayes_clip.inference.laplace import laplace
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.mode import (
    ModeProblem,
    find_mode,
    left_out_logits,
    left_out_modes,
    logits_of,
    mode_problem,
    rescaled,
    weights_of,
)
from bayes_clip.inference.program_logits import ProgramLogits
from bayes_clip.inference.rules import Rule, find_rule
from bayes_clip.inference.stream import run
from bayes_clip.observation import SOFTMAX
from bayes_clip.settings import FitSettings
from bayes_clip.threads import one_thread

TUNING_TOLERANCE = 1e-3  # Newton decrement in nats: far below what folds can tell
CLOSED_FORM_FAMILIES = ("", "class_block", "full")
LARGEST_FOLD = 256  # rows: a larger one takes longer to take out of every class than to fit without
MOST_REFITS = 2  # folds for engines without a closed form
MOST_REFITS_OF_HEADS = 4  # that keep labelled rows: with half of these they are other programs altogether
MOST_ROWS = 512
ROWS_PER_FEATURE = 1.5  # up to here the rows' logits are a cheaper space to filter in than the weights


def searched(problem: Problem) -> Problem:
    """The problem with as many shots of every class as a search looks at: up to 512 rows, at least two shots.

    The best prior variance hardly depends on how many more there are.
    """
    shots = shot_numbers(problem.labels.cpu())
    rows = torch.bincount(shots).cumsum(0)
    most = max(2, int((rows <= MOST_ROWS).sum()))
    return problem if most >= len(rows) else problem.rows(torch.nonzero(shots < most)[:, 0])


def held_out(problem: Problem, settings: FitSettings) -> FoldMoments | None:
    """Prior variance -> moments of each support row's class logits without its fold; None at one shot.

    For map and laplace, and for ekf by its class-block sites, about as dear as a fit or less; what has no
    closed form (vi, ekf with other covariances, programs that are no linear head), and ekf with folds of more
    than 256 rows, is fitted twice to half of the rows.
    """
    folds = balanced_folds(problem.labels, MOST_FOLDS)
    if not folds:
        return None
    program = problem.program
    closed = has_closed_form(program) and settings.engine in ("map", "laplace", "ekf")
    closed = closed and not problem.kind.uses_support  # what it keeps of a fold's rows goes with the fold
    if settings.engine == "ekf":
        closed = closed and _has_cavities(settings, folds)
    if not closed:
        most = MOST_REFITS_OF_HEADS if problem.kind.uses_support and program.is_head else MOST_REFITS
        return _refitted(problem, settings, balanced_folds(problem.labels, most))
    design = program.design(problem.inputs)
    prepared = mode_problem(design, problem.labels, program.prior_mean, program.prior_variance)
    if settings.engine == "ekf":
        return _filtered_folds(problem, prepared, settings, folds)
    return _mode_folds(problem, prepared, settings, folds)


def _has_cavities(settings: FitSettings, folds: list[Tensor]) -> bool:
    """Whether folds can be taken out of the covariance, class by class."""
    return settings.family in CLOSED_FORM_FAMILIES and max(len(fold) for fold in folds) <= LARGEST_FOLD


def _mode_folds(
    whole: Problem, prepared: ModeProblem, settings: FitSettings, folds: list[Tensor]
) -> FoldMoments:
    """Folds of the mode; for laplace with variances by the curvature p (1 − p) there.

    Where that has no cavities, the covariance of the rest is found at the mode of the rest.
    """
    start: Tensor | None = None

    def at(prior_variance: float) -> tuple[Tensor, Tensor]:
        nonlocal start
        problem = rescaled(prepared, whole.at(prior_variance).program.prior_variance)
        with one_thread(problem.design.numel() * len(problem.mean)):
            start = find_mode(problem, start, torch.float32, TUNING_TOLERANCE)
            modes = left_out_modes(problem, start, folds)
        mean = left_out_logits(problem, modes, folds)
        if settings.engine == "map":
            return mean, torch.zeros_like(mean)
        if not _has_cavities(settings, folds):
            at_modes = [weights_of(problem, mode.double()) for mode in modes]
            return mean, _variances_of_the_rest(whole.at(prior_variance), at_modes, settings.family, folds)
        logits = logits_of(problem, start)
        probabilities = logits.softmax(-1)
        sites = probabilities * (1 - probabilities), SOFTMAX.target(problem.labels, logits) - probabilities
        return mean, cavity_moments(
            problem.design, problem.variance, logits, *sites, folds, settings.torch_dtype
        )[1]

    return at


def _variances_of_the_rest(
    whole: Problem, modes: Sequence[Tensor], family: str, folds: Sequence[Tensor]
) -> Tensor:
    """Logit variances (N, C) of each row under Laplace of the rows outside its fold, at their `modes`."""
    design, variance = whole.program.design(whole.inputs), whole.program.prior_variance
    everything = torch.arange(len(design), device=design.device)
    found = design.new_empty(len(design), len(variance), dtype=torch.float64)
    for fold, mode in zip(folds, modes, strict=True):
        kept = everything[~torch.isin(everything, fold)]
        belief = laplace(family, design[kept], whole.labels[kept], mode.to(design), variance)
        found[fold] = belief.logit_moments(design[fold])[1].double()
    return found


def _filtered_folds(
    whole: Problem, prepared: ModeProblem, settings: FitSettings, folds: list[Tensor]
) -> FoldMoments:
    """Folds of the filter by its own per-row sites."""
    size = settings.batch_size and max(settings.batch_size, SMALLEST_BALANCED)
    order = batches(prepared.labels, len(prepared.mean), settings.order, size, settings.seed)
    few = len(prepared.labels) <= ROWS_PER_FEATURE * prepared.mean.shape[1]
    rule, dtype = find_rule(settings.update_rule), settings.torch_dtype

    def at(prior_variance: float) -> tuple[Tensor, Tensor]:
        problem = rescaled(prepared, whole.at(prior_variance).program.prior_variance)
        if few and settings.state_space.is_static and settings.passes == 1:
            logits, precision, linear, blocks = filtered_logits(problem, order, rule, folds, dtype)
            return without_folds(blocks, logits, precision, linear - precision * logits, folds)
        logits, precision, linear = _filtered_weights(problem, order, rule, settings)
        sites = precision, linear - precision * logits
        return cavity_moments(problem.design, problem.variance, logits, *sites, folds, dtype)

    return at


def filtered_logits(
    problem: ModeProblem, order: Sequence[Tensor], rule: Rule, folds: Sequence[Tensor], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The static class-block filter over the rows' own logits, whose prior covariance is Φ P₀ Φᵀ per class.

    Returns the rows' posterior mean logits, their sites' precision and linear term, (N, C) each, and the
    posterior covariance (C, n, n) of each fold's logits. N³ operations per class and 2 N³ / K for K folds,
    where the weights would take 4 D² N and 2 D² N. The coupling of the classes moves the mean and not, as it
    does in the filter of the weights, the covariance: exact for sites that are diagonal.
    """
    rows = torch.cat(list(order))
    design, variance = problem.design[rows].to(dtype), problem.variance.to(dtype)
    logits, labels = problem.prior_logits[rows], problem.labels[rows]
    precision, linear = torch.empty_like(logits), torch.empty_like(logits)
    # T with Φ (P₀ − P) Φᵀ = T Tᵀ per class: a batch adds as many columns as it has rows
    taken = design.new_empty(len(problem.mean), len(rows), len(rows))
    begin = 0
    for part in order:
        now, before = slice(begin, begin + len(part)), slice(0, begin)
        gram = _prior_gram(design[now], design, variance)  # (C, b, N)
        gram -= taken[:, now, before] @ taken[:, :, before].mT
        own = BlockGram(gram[:, :, now].contiguous()).double()
        spread = (design[now].square() @ variance.expand(-1, design.shape[1]).mT).mean().double()
        with one_thread():
            change = rule(SOFTMAX, own, logits[now], labels[now], spread)
            root = change.curvature.mT.sqrt()
            inner = root[:, :, None] * own.blocks * root[:, None]
            inner.diagonal(dim1=1, dim2=2).add_(1)
            factor = torch.linalg.cholesky(inner)
            half = torch.linalg.solve_triangular(factor, torch.diag_embed(root), upper=False)
        precision[now], linear[now] = change.curvature, change.linear
        taken[:, :, now] = (half.to(dtype) @ gram).mT
        logits = logits + (change.dual.to(dtype).mT[:, None] @ gram)[:, 0].mT
        begin = now.stop
    place = torch.empty_like(rows)
    place[rows] = torch.arange(len(rows), device=rows.device)
    blocks = []
    for fold in folds:
        known, seen = taken[:, place[fold]], design[place[fold]]
        blocks.append((_prior_gram(seen, seen, variance) - known @ known.mT).double())
    return logits[place], precision[place], linear[place], blocks


def _prior_gram(left: Tensor, right: Tensor, variance: Tensor) -> Tensor:
    """Prior covariance (C, n, m) of the logits of rows (n, r) and (m, r); `variance` (C, r) or (C, 1)."""
    if variance.shape[1] == 1:
        return variance[..., None] * (left @ right.mT)
    return (left * variance[:, None]) @ right.mT


def _filtered_weights(
    problem: ModeProblem, order: Sequence[Tensor], rule: Rule, settings: FitSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior mean logits of the rows, and their sites' precision and linear term, (N, C) each."""
    axes = problem.design.to(settings.torch_dtype)
    still = axes.new_zeros(len(problem.mean), axes.shape[1])
    state = kalman.init(still, problem.variance.expand_as(still).to(still), "class_block")
    data = [Batch(axes[rows], problem.labels[rows], problem.prior_logits[rows]) for rows in order]
    state, infos = run(state, data, rule, settings.state_space, settings.passes)
    rows = torch.cat(list(order))
    precision, linear = torch.empty_like(problem.prior_logits), torch.empty_like(problem.prior_logits)
    precision[rows] = torch.cat([info.change.curvature for info in infos])
    linear[rows] = torch.cat([info.change.linear for info in infos])
    return problem.prior_logits + problem.design @ state.belief.mean.double().mT, precision, linear


def _refitted(problem: Problem, settings: FitSettings, folds: list[Tensor]) -> FoldMoments:
    """Folds by fitting the rest: exact for what the engine does, and slower."""
    everything = torch.arange(len(problem.labels))

    def at(prior_variance: float) -> tuple[Tensor, Tensor]:
        classes = len(problem.model.class_names)
        mean = problem.inputs.new_empty(len(everything), classes)
        variance = torch.empty_like(mean)
        for fold in folds:
            kept = everything[~torch.isin(everything, fold)]
            part = problem.at(prior_variance).rows(kept)
            weights, _ = infer(part, settings, draft=True)
            logits = ProgramLogits(part.program, weights)
            mean[fold], variance[fold] = logits.logit_moments(problem.inputs[fold])
        return mean.double(), variance.double()

    return at
