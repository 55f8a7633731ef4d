"""Training as published: gradient steps by a program's own recipe; the last step is the result.

There is no prior here and no covariance: the program's `loss` is minimised from its `start`, by torch's own
optimizers. No step is chosen by what it scores anywhere, so that nothing is tuned on a query set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from bayes_clip.errors import UserError
from bayes_clip.gaussian.point import Point
from bayes_clip.inference.program import Program
from bayes_clip.model import AdapterModel
from bayes_clip.progress import track
from bayes_clip.randomness import own_random_numbers
from bayes_clip.recipe import Recipe
from bayes_clip.threads import one_thread

Views = Callable[[int], Tensor]  # number of an epoch -> the inputs (N, F) as it sees them


def shots_of(labels: Tensor) -> int:
    """Rows of the largest class."""
    return int(torch.bincount(labels).max())


def trained(model: AdapterModel, program: Program, views: Views, labels: Tensor, seed: int) -> Point:
    """Follow the recipe of `model`, which has one (`runnable.why_not`), to its last step.

    `seed` gives the order of the rows in each epoch, and what `model.start` and `model.loss` (dropout)
    draw. On one machine it repeats bit for bit. `labels` (N,); dtype and device are those of the problem.

    Raises:
        UserError: a start without a weight of every site, or a loss that is no longer finite.
    """
    recipe = model.recipe
    assert recipe is not None
    generator = torch.Generator().manual_seed(seed)
    rows, device = len(labels), labels.device
    batches, steps = recipe.batches(rows), recipe.length(rows, shots_of(labels))
    with own_random_numbers(device, seed), torch.enable_grad(), one_thread(_work(model, program, rows)):
        weights = _start(model, program, generator)
        optimizer = make_optimizer(recipe, list(weights.values()))
        order = _order(recipe, labels, views, generator)
        for step, (inputs, truth) in zip(track(range(steps), "Training"), order, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step, batches, steps)
            optimizer.zero_grad()
            loss = model.loss(weights, inputs, truth)
            if not loss.isfinite():
                raise UserError(
                    f"{program.name}: its loss is {float(loss.detach())} at step {step + 1} of {steps}; "
                    "lower the learning rate of its recipe, or try --dtype float64"
                )
            loss.backward()
            optimizer.step()
    last = model.finish({name: value.detach() for name, value in weights.items()})
    flat = torch.cat([last[site.name].reshape(-1) for site in program.sites])
    return Point(flat.reshape(program.prior_mean.shape))


def make_optimizer(recipe: Recipe, weights: list[Tensor]) -> Optimizer:
    """Torch's optimizer with the numbers of the recipe."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return SGD(weights, lr=rate, momentum=recipe.momentum, weight_decay=decay)
    kind = Adam if recipe.optimizer == "adam" else AdamW
    return kind(weights, lr=rate, eps=recipe.epsilon, weight_decay=decay)


def _start(model: AdapterModel, program: Program, generator: torch.Generator) -> dict[str, Tensor]:
    """Leaf tensors of every site, in the dtype and on the device of the problem."""
    given = model.start(generator)
    sites = {site.name: site.shape for site in program.sites}
    if given.keys() != sites.keys():
        raise UserError(
            f"{program.name}: its start gives {', '.join(given)} and its sites are {', '.join(sites)}; give "
            "every site its weights"
        )
    return {
        name: given[name].detach().to(program.prior_mean).expand(shape).clone().requires_grad_()
        for name, shape in sites.items()
    }


def _order(
    recipe: Recipe, labels: Tensor, views: Views, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of inputs and labels, epoch after epoch without end."""
    rows = len(labels)
    size = recipe.batch_size or rows
    for epoch in count():
        inputs = views(epoch)
        shuffled = torch.randperm(rows, generator=generator).to(labels.device)
        for part in shuffled.split(size)[: recipe.batches(rows)]:
            yield inputs[part], labels[part]


def _work(model: AdapterModel, program: Program, rows: int) -> int:
    """Multiply-adds of the largest matrix product of a step, roughly."""
    recipe = model.recipe
    assert recipe is not None
    size = min(recipe.batch_size or rows, rows)
    encoder = model.context.encoder
    if encoder is None:
        return size * model.width * program.outputs
    tokens = encoder.model.context_length
    return max(size, program.outputs) * int(tokens) * encoder.feature_dim**2
