"""One fit over several processes, each with the covariance of its own classes: the filter over several GPUs.

Started by torchrun, a process for each GPU (or for some cores). The result is that of one process, to
rounding: it is the same filter, see `gaussian.sharded`. Of R processes each holds C/R of the C covariance
blocks (D, D), and all of the task, the mean (C, D) and the rows' logits. The posterior that is written is
whole: the first process gathers it in main memory at the end, C D² numbers. Choosing the prior variance
(``--prior-variance auto``) is done by the first process alone, as one process does it, in as much memory as
it takes there: for a covariance that fits no single device give a number, say what fewer shots chose.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as distributed
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import as_tensors, hold_out
from bayes_clip.fitting import Fit, fit
from bayes_clip.gaussian import ClassBlock
from bayes_clip.gaussian.sharded import ShardedClassBlock
from bayes_clip.model import Context
from bayes_clip.posterior import Posterior
from bayes_clip.settings import FitSettings
from bayes_clip.shard import Shard
from bayes_clip.storage.folder import Made, check_posterior_folder, write_posterior
from bayes_clip.storage.lock import locked
from bayes_clip.streaming import request_to_fit

START = "torchrun --nproc-per-node 2 -m bayes_clip.cli fit TASK --distributed --out POSTERIOR"
LONGEST_WAIT = timedelta(hours=2)  # of a process for another: the first one chooses the prior variance alone


@dataclass(frozen=True)
class Place:
    """This process among all, and its device."""

    rank: int
    processes: int
    device: str

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0


def check_distributed(settings: FitSettings) -> None:
    """Refuse settings that are not shared out over processes.

    Raises:
        UserError: another engine, covariance or number of passes; a process that torchrun did not start.
    """
    if settings.engine != "ekf" or settings.family != "class_block":
        raise UserError("--distributed: shares out --engine ekf with --covariance class_block; use them")
    if settings.passes > 1:
        raise UserError(f"--passes {settings.passes} with --distributed: use one pass")
    if settings.batch_size == 1 and settings.block_rows > 1:
        raise UserError("--batch-size 1 with --distributed: blocks are for one process; add --block-size 1")
    if settings.device not in ("cpu", "cuda"):
        raise UserError(f"--device {settings.device}: with --distributed each process has its own; give cuda")
    if "RANK" not in os.environ:
        raise UserError(f"--distributed: start it with {START}")


@contextmanager
def joined_processes(device: str) -> Iterator[Place]:
    """The process group that torchrun's environment describes, for the length of the block.

    Raises:
        UserError: fewer GPUs here than processes, or the others cannot be reached.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if torch.cuda.device_count() < here:
            raise UserError(
                f"--device cuda: {here} processes and {torch.cuda.device_count()} GPUs; "
                "give torchrun --nproc-per-node as many as there are GPUs"
            )
        torch.cuda.set_device(local)
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=LONGEST_WAIT
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--distributed: the processes do not find each other ({error}); {START}") from error
    try:
        own = f"cuda:{local}" if device == "cuda" else device
        yield Place(distributed.get_rank(), distributed.get_world_size(), own)
    finally:
        distributed.destroy_process_group()


def fit_across(folder: Path | str, task: Task, settings: FitSettings, place: Place) -> Fit | None:
    """Fit `task` over all processes; the first writes the posterior to `folder`, as `fit_into` does.

    Every process must call it with the same task and settings. Returns the fit on the first one, its
    posterior whole and in main memory; None on the others. Keeps no checkpoints.

    Raises:
        UserError: what `check_distributed` and `fit` refuse, more processes than classes, or a folder that
            cannot be written to or is being written to.
    """
    check_distributed(settings)
    check_posterior_folder(folder)
    shard = Shard(task.num_classes, place.rank, place.processes)
    if shard.processes > shard.classes:
        raise UserError(
            f"--distributed: {shard.processes} processes for {shard.classes} classes; each needs one at least"
        )
    with ExitStack() as held:
        shard.of_first(lambda: str(held.enter_context(locked(folder))))
        fitted = fit(task, replace(settings, device=place.device), shard=shard)
        held_out = hold_out(task, fitted.posterior, shard)
        whole = _whole(fitted.posterior, shard, settings)
        if whole is None:
            return None
        write_posterior(whole, Path(folder), as_tensors(held_out), Made(request_to_fit(task, settings)))
        return replace(fitted, posterior=whole)


def _whole(posterior: Posterior, shard: Shard, settings: FitSettings) -> Posterior | None:
    """The posterior with the covariance of all classes, on the CPU of the first process; None elsewhere."""
    belief = posterior.weights
    assert isinstance(belief, ShardedClassBlock)
    covariance = gathered(belief.covariance.cpu(), shard)
    if covariance is None:
        return None
    program, stream = posterior.program, posterior.stream
    assert stream is not None
    model = type(program)(_on_cpu(program.context), program.prior_variance)
    source = replace(posterior.source, settings=replace(posterior.source.settings, device=settings.device))
    kept = replace(stream, prior_mean=stream.prior_mean.cpu(), prior_variance=stream.prior_variance.cpu())
    return Posterior(model, ClassBlock(belief.mean.cpu(), covariance), source, kept)


def gathered(own: Tensor, shard: Shard) -> Tensor | None:
    """(C, ...) of all classes on the first process from (n, ...) of each, on CPUs; None on the others."""
    if shard.rank > 0:
        distributed.send(own.contiguous(), 0)
        return None
    whole = own.new_empty(shard.classes, *own.shape[1:])
    for rank in range(shard.processes):
        part = whole[replace(shard, rank=rank).own]
        if rank == 0:
            part.copy_(own)
        else:
            distributed.recv(part, rank)
    return whole


def _on_cpu(context: Context) -> Context:
    support = context.support
    if support is not None:
        support = replace(support, **{name: part.cpu() for name, part in vars(support).items()})
    return replace(context, text_features=context.text_features.cpu(), support=support)
