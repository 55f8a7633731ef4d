from __future__ import annotations

import pytest
import torch
from small_problems import assert_near
from torch import Tensor

from bayes_clip.inference import fixed_point as module
from bayes_clip.inference.fixed_point import fixed_point

FAR = torch.tensor([3.0, -2.0, 5.0]).double()
GOAL = torch.tensor([0.3, 0.1, -0.4]).double()


def cosines(point: Tensor) -> tuple[Tensor, Tensor]:
    """x -> cos(x), whose fixed point is 0.739085... in every entry, alternating where it is iterated."""
    change = point.cos() - point
    return change, change.abs().max()


def anywhere(point: Tensor) -> Tensor:
    return point


def test_a_contraction_is_followed_to_its_fixed_point() -> None:
    start = torch.linspace(-2, 2, 20).double()
    point, gap, steps = fixed_point(cosines, anywhere, start, 1e-7, 50)
    assert_near(point, torch.full((20,), 0.7390851332151607).double(), 1e-7)
    assert float(gap) <= 1e-7 and int(steps) < 20, "iterated without mixing it takes 40"


def test_mixing_solves_a_linear_map_that_iteration_alone_does_not() -> None:
    """x -> A x + b with an eigenvalue of −3: in exact arithmetic four points determine it."""
    matrix = torch.diag(torch.tensor([-3.0, 0.5, 0.9])).double()

    def change(point: Tensor) -> tuple[Tensor, Tensor]:
        moved = matrix @ (point - GOAL) - (point - GOAL)
        return moved, moved.abs().max()

    point, _, steps = fixed_point(change, anywhere, FAR, 1e-6, 40)
    assert_near(point, GOAL, 1e-5)
    assert int(steps) <= 8


@pytest.mark.parametrize("most", [3, 40])
def test_not_looking_changes_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = fixed_point(cosines, anywhere, FAR, 1e-6, most)
    monkeypatch.setattr(module, "told", lambda flag: False)
    for found, wanted in zip(fixed_point(cosines, anywhere, FAR, 1e-6, most), looking, strict=True):
        assert torch.equal(found, wanted)


def test_where_nothing_converges_the_nearest_point_is_kept() -> None:
    """x -> 2 x + 1 kept within [0, 1]: the least gap is at zero, where the search came from."""

    def change(point: Tensor) -> tuple[Tensor, Tensor]:
        return point + 1, (point + 1).abs().max()

    start = torch.zeros(2).double()
    point, gap, steps = fixed_point(change, lambda point: point.clamp(0.5, 1), start, 1e-6, 10)
    assert torch.equal(point, start) and float(gap) == 1 and int(steps) == 10


def test_a_gap_that_is_no_number_ends_the_search() -> None:
    point, gap, steps = fixed_point(lambda x: (x / 0, (x / 0 * 0).max()), anywhere, FAR, 1e-6, 10)
    assert torch.equal(point, FAR) and float(gap) == float("inf") and int(steps) == 1
