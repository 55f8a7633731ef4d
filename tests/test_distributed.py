"""The filter with its classes shared out over two processes equals one process; what cannot be shared out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyro
import pytest
import torch
from pyro.distributions import Categorical, Normal
from sharded_work import CASES, SETTINGS, alone, both, task
from small_problems import EXACT
from two_processes import by_two

from bayes_clip.distributed import check_distributed
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import load_held_out
from bayes_clip.fitting import fit
from bayes_clip.posterior import Posterior
from bayes_clip.shard import Shard
from bayes_clip.storage.durable import fit_into
from bayes_clip.storage.folder import load_posterior


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: they take seconds to start, and do everything here at once."""
    place = tmp_path_factory.mktemp("two")
    by_two(both, str(place))
    return place


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{c[0]} {c[1].name} {c[2].decay}" for c in CASES])
def test_two_processes_are_one(folder: Path, number: int) -> None:
    found = torch.load(folder / f"{number}.pt", weights_only=True)
    for one, two in zip(alone(number), found, strict=True):
        assert one.shape == two.shape and (one - two).abs().max() <= EXACT * one.abs().max().clamp_min(1)


def test_a_fit_of_two_processes_is_an_ordinary_posterior(folder: Path, tmp_path: Path) -> None:
    fit_into(tmp_path / "one", task(), SETTINGS)
    one, two = load_posterior(tmp_path / "one"), load_posterior(folder / "posterior")
    assert type(two.weights) is type(one.weights) and two.source == one.source
    for first, second in zip(said(one), said(two), strict=True):
        assert (first - second).abs().max() <= EXACT * first.abs().max().clamp_min(1)
    held, held_two = load_held_out(tmp_path / "one"), load_held_out(folder / "posterior")
    assert held is not None and held_two is not None
    assert abs(held.novelty - held_two.novelty).max() <= EXACT * abs(held.novelty).max()


def said(posterior: Posterior) -> list[torch.Tensor]:
    return list(vars(posterior.predict(task().query_features)).values())


def test_a_posterior_of_two_processes_takes_more_labels(folder: Path) -> None:
    import bayes_clip as bc

    assert bc.update(load_posterior(folder / "posterior"), task()).rows == len(task().support_labels)


def test_what_the_first_process_refuses_both_refuse(folder: Path) -> None:
    for rank in (0, 1):
        assert (folder / f"refused {rank}").read_text() == "it is written to by another"


def test_classes_are_shared_out_evenly() -> None:
    shards = [Shard(7, rank, 3) for rank in range(3)]
    assert shards[0].sizes == [3, 2, 2]
    assert [list(range(7))[shard.own] for shard in shards] == [[0, 1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "laplace"}, "--engine ekf with --covariance class_block"),
        ({"covariance": "full"}, "--engine ekf with --covariance class_block"),
        ({"passes": 2}, "--passes 2 with --distributed: use one pass"),
        ({"batch_size": 1}, "add --block-size 1"),
        ({"device": "cuda:1"}, "each process has its own; give cuda"),
        ({}, "start it with torchrun --nproc-per-node 2"),
    ],
)
def test_what_is_not_shared_out_is_refused(
    changes: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match=message):
        check_distributed(replace(SETTINGS, **changes))


def test_a_program_that_is_no_linear_head_is_refused() -> None:
    def curved(inputs: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        down = pyro.sample("down", Normal(torch.eye(6).double(), 0.1).to_event(2))
        up = pyro.sample("up", Normal(torch.eye(5, 6).double(), 1.0).to_event(2))
        with pyro.plate("data", len(inputs)):
            logits = torch.tanh(inputs @ down.mT) @ up.mT
            return pyro.sample("labels", Categorical(logits=logits), obs=labels)

    with pytest.raises(UserError, match="curved: --distributed needs a linear head"):
        fit(task(), SETTINGS, program=curved, shard=Shard(5, 0, 1))
