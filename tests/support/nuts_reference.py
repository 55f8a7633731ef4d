"""Moments of three-class posteriors by a long NUTS chain, kept in a table because the chains take minutes.

`python tests/support/nuts_reference.py` runs them again and writes tests/oracles/nuts_reference.csv.
Effective draws come from Pyro's own diagnostics; a mean is uncertain by a deviation over their root.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from small_problems import SmallProblem, problem_of, tiny_task
from torch import Tensor

from bayes_clip.data.task import Task

TABLE = Path(__file__).parents[1] / "oracles" / "nuts_reference.csv"
DRAWS, WARMUP = 4_000, 500
COLUMNS = ("problem", "class", "feature", "mean", "deviation", "effective_draws")


@dataclass(frozen=True)
class Case:
    """A task whose posterior is nearly Gaussian at this prior variance."""

    task: Task
    variance: float

    @property
    def problem(self) -> SmallProblem:
        """The linear probe on its support set."""
        return problem_of(self.task, self.variance)


CASES = {
    "24 labels, 2 features": Case(tiny_task(3, 2, 8, logit_scale=10.0), 0.01),
    "30 labels, 3 features": Case(tiny_task(3, 3, 10, logit_scale=10.0), 0.01),
}


@dataclass(frozen=True)
class Moments:
    """Posterior means and standard deviations (C, D), and what they rest on."""

    mean: Tensor
    deviation: Tensor
    effective_draws: float


def reference(name: str) -> Moments:
    """The moments of a case as the table has them."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["problem"] == name]
    shape = CASES[name].problem.mean.shape
    mean, deviation, effective = (
        torch.tensor([float(row[column]) for row in rows], dtype=torch.float64).reshape(shape)
        for column in COLUMNS[3:]
    )
    return Moments(mean, deviation, float(effective.min()))


def _chain(case: Case) -> dict[str, Tensor]:
    """Pyro's NUTS on the model program, with everything from Pyro and nothing from the engines."""
    import pyro
    from pyro.infer import MCMC, NUTS
    from pyro.infer.autoguide.initialization import init_to_value

    from bayes_clip.model import Context, find_model

    text = case.task.text_features.double()
    program = find_model("linear_probe")(
        Context(text, case.task.class_names, case.task.logit_scale), case.variance
    )
    torch.manual_seed(0)
    with pyro.validation_enabled(False):
        kernel = NUTS(program, init_strategy=init_to_value(values={"class_weights": text}))
        chain = MCMC(kernel, num_samples=DRAWS, warmup_steps=WARMUP, disable_progbar=True)
        chain.run(case.task.support_features.double(), case.task.support_labels)
    draws = chain.get_samples()["class_weights"]
    return {
        "mean": draws.mean(0),
        "deviation": draws.std(0),
        "effective_draws": chain.diagnostics()["class_weights"]["n_eff"],
    }


def main() -> None:
    """Write the table."""
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for name, case in CASES.items():
            found = _chain(case)
            for index in range(case.problem.mean.shape[0]):
                for feature in range(case.problem.mean.shape[1]):
                    numbers = (f"{float(found[column][index, feature]):.6g}" for column in COLUMNS[3:])
                    table.writerow((name, index, feature, *numbers))


if __name__ == "__main__":
    main()
