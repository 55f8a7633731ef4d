from __future__ import annotations

import pytest
import torch
from naive_twins import mode_and_covariance
from small_problems import assert_near, small_problem

from bayes_clip.gaussian import FAMILIES
from bayes_clip.inference.newton import log_joint, newton_mode
from bayes_clip.observation import SOFTMAX


@pytest.mark.parametrize("family", ["class_block", "full"])
def test_it_is_the_mode_also_from_somewhere_else(family: str) -> None:
    problem = small_problem(variance=20.0)
    gram = FAMILIES[family].from_prior(problem.mean, problem.variance).project(problem.design).gram
    arguments = SOFTMAX, gram, problem.logits, problem.labels, 1e-11
    dual, excess, steps = newton_mode(*arguments)
    wanted, _ = mode_and_covariance(problem)
    assert_near(problem.logits + excess, problem.design @ wanted.mT, 1e-8)
    assert_near(excess, gram.times(dual))
    again, _, fewer = newton_mode(*arguments, start=dual)
    assert int(fewer) == 0 < int(steps)
    assert torch.equal(again, dual)
    far, _, _ = newton_mode(*arguments, start=dual + 1)
    assert_near(far, dual)


def test_a_step_from_a_certain_and_wrong_prediction_is_shortened() -> None:
    """No step makes the log joint density fall, however far the mode is."""
    problem = small_problem(variance=30.0)
    gram = FAMILIES["class_block"].from_prior(problem.mean, problem.variance).project(problem.design).gram
    wrong = torch.zeros_like(problem.logits)
    wrong[range(len(wrong)), (problem.labels + 1) % 3] = 60.0
    values = []
    for most in range(12):
        dual, excess, _ = newton_mode(SOFTMAX, gram, wrong, problem.labels, 1e-11, most=most)
        values.append(log_joint(SOFTMAX, wrong, problem.labels, dual, excess))
    assert (torch.stack(values).diff() >= -1e-9).all()
    assert float(values[-1] - values[0]) > 10
