"""What a few pictures are taken for while labels are learned one after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.posterior import Posterior
from bayes_clip.streaming import update


def label_course(posterior: Posterior, task: Task, features: Tensor) -> np.ndarray:
    """Probabilities (T + 1, W, C) of the rows `features` (W, D), before and after each label of `task`.

    The T support rows of `task` are learned in their order, each by one update of the filter; `posterior`
    itself does not change. The task knows no class that the posterior does not.

    Raises:
        UserError: as `update`.
        ValueError: the task has classes that the posterior does not know.
    """
    if set(task.class_names) - set(posterior.class_names):
        raise ValueError(
            "the task has classes that the posterior does not know: their columns would be missing"
        )
    said = [posterior.predict(features).probabilities]
    for row in range(len(task.support_labels)):
        one = replace(task.with_support(torch.tensor([row])), is_partial=True)
        posterior = update(posterior, one).posterior
        said.append(posterior.predict(features).probabilities)
    return torch.stack(said).double().cpu().numpy()
