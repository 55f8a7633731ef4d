"""Suggestions: information against naive numpy, twins in the pool, novelty, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.distributions import Normal
from small_problems import EXACT, tiny_task

import bayes_clip as bc
from bayes_clip.candidates import SPREAD, BeliefCandidates, candidates_of
from bayes_clip.data.rows import Rows
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import hold_out
from bayes_clip.gaussian.noise import antithetic, keys_of
from bayes_clip.suggesting import DRAWS, greedy, suggest

SETTINGS = bc.FitSettings(prior_variance=0.3, dtype="float64")
TASK = tiny_task(classes=3, shots=2, ood=True)
POSTERIOR = bc.fit(TASK, SETTINGS).posterior


def naive_information(posterior: bc.Posterior, rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """H(E p) − E H(p) and −H(E p) of each row, one draw of one row after another, plain numpy."""
    inputs = posterior.as_inputs(rows)
    design = posterior.logits.program.design(inputs).numpy()
    mean, covariance = posterior.weights.mean.numpy(), posterior.weights.covariance.numpy()
    (noise,) = torch.cat([block.clone() for block in antithetic(keys_of(inputs), 3, DRAWS, DRAWS, inputs)])[
        None
    ]
    information, evidence = [], []
    for row, own in zip(design, noise.transpose(0, 1).numpy(), strict=True):
        deviation = np.sqrt(SPREAD * np.array([row @ block @ row for block in covariance]))
        average, inside = np.zeros(3), 0.0
        for draw in own:
            weight = np.exp(mean @ row + deviation * draw - 30)
            p = weight / weight.sum()
            average += p / DRAWS
            inside -= (p * np.log(p)).sum() / DRAWS
        total = -(average * np.log(average)).sum()
        information.append(total - inside)
        evidence.append(-total)
    return np.array(information), np.array(evidence)


def test_information_equals_naive_numpy() -> None:
    information, evidence = naive_information(POSTERIOR, TASK.query_features)
    found = suggest(POSTERIOR, TASK.query_rows, 1)
    best = int(information.argmax())
    assert found.rows == (best,)
    assert found.information[0] == pytest.approx(information[best], abs=EXACT) == found.alone[0]
    assert found.evidence[0] == pytest.approx(evidence[best], abs=EXACT)
    unsure = suggest(POSTERIOR, TASK.query_rows, 1, by="evidence")
    assert unsure.rows == (int(evidence.argmin()),)


def test_a_batch_is_greedy_with_one_update_after_each() -> None:
    found = suggest(POSTERIOR, TASK.query_rows, 5)
    posterior, left = POSTERIOR, list(range(len(TASK.query_labels)))
    inputs = posterior.as_inputs(TASK.query_rows)
    for place, row in enumerate(found.rows):
        information, _ = naive_information(posterior, TASK.query_features)
        assert row == max(left, key=lambda index: information[index])
        assert found.information[place] == pytest.approx(information[row], abs=EXACT)
        left.remove(row)
        belief = candidates_of(posterior, inputs)
        design = posterior.logits.program.design(inputs)
        updated = BeliefCandidates(posterior.weights, design, None, belief.observation).given(row).belief  # type: ignore[arg-type, attr-defined]
        posterior = bc.Posterior(posterior.program, updated, posterior.source)


def test_twins_in_the_pool_are_not_both_suggested_first() -> None:
    first = suggest(POSTERIOR, TASK.query_rows, 1).rows[0]
    twin = TASK.query_features[first : first + 1]
    pool = torch.cat([twin, twin, TASK.query_features])
    found = suggest(POSTERIOR, pool, 3)
    assert found.rows[0] in (0, 1, first + 2)
    assert not {0, 1, first + 2} & set(found.rows[1:])
    # taken each by itself, the twins would fill the batch
    information, _ = naive_information(POSTERIOR, pool)
    assert set(np.argsort(-information, kind="stable")[:3].tolist()) == {0, 1, first + 2}


@given(st.integers(1, 12), st.permutations(range(12)))
@settings(max_examples=8, deadline=None)
def test_suggestions_do_not_depend_on_the_order_of_the_pool(k: int, order: list[int]) -> None:
    pool = TASK.query_features[::5]
    found = suggest(POSTERIOR, pool, k)
    turned = suggest(POSTERIOR, pool[order], k)
    assert [order[row] for row in turned.rows] == list(found.rows)
    assert np.allclose(turned.information, found.information, atol=EXACT)
    assert len(set(found.rows)) == k
    assert all(
        0 <= given <= alone + 1e-6 for given, alone in zip(found.information, found.alone, strict=True)
    )


def test_a_shortlist_changes_nothing_while_it_holds_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = suggest(POSTERIOR, TASK.query_rows, 3)
    monkeypatch.setattr("bayes_clip.suggesting.CANDIDATES", 1)
    assert suggest(POSTERIOR, TASK.query_rows, 3) == whole  # 24 of 60 rows


def test_what_looks_like_no_class_is_left_out_unless_asked_for() -> None:
    many = tiny_task(classes=3, shots=8, ood=True)
    posterior = bc.fit(many, SETTINGS).posterior
    held = hold_out(many, posterior)
    assert held is not None and many.ood_features is not None
    pool = torch.cat([many.ood_features, many.query_features])
    limit = held.novelty_limit().value
    strange = set(torch.nonzero(posterior.predict(pool).novelty > limit)[:, 0].tolist())
    assert strange
    found = suggest(posterior, pool, 40, novelty_limit=limit)
    assert not strange & set(found.rows) and f"{len(strange)} of {len(pool)}" in found.notes[0]
    assert strange & set(suggest(posterior, pool, 40).rows)
    with pytest.raises(UserError, match="--include-novel"):
        suggest(posterior, many.query_rows, 3, novelty_limit=-1e9)


class Shifted(bc.AdapterModel):
    """The linear probe written as a shift of the text features: affine in its weights, and no linear head."""

    def prior(self) -> dict:
        still = torch.zeros_like(self.text_features)
        return {"shift": Normal(still, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict, inputs: torch.Tensor) -> torch.Tensor:
        return self.logit_scale * inputs @ (self.text_features + weights["shift"]).mT


def test_a_program_that_is_no_linear_head_is_asked_through_its_jacobian(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bayes_clip.suggesting.DRAWS", 2**14)
    laplace = replace(SETTINGS, engine="laplace", covariance="full", predictive="plug_in")
    posterior = bc.fit(TASK, laplace, program=Shifted).posterior
    head = bc.fit(TASK, laplace).posterior
    assert not posterior.logits.program.is_head
    found, wanted = (suggest(known, TASK.query_features[:20], 2) for known in (posterior, head))
    # the same model; its logits are centred and drawn by another root, which leaves the Monte-Carlo error
    assert found.rows == wanted.rows
    assert found.information == pytest.approx(wanted.information, abs=0.02)
    assert found.probability == pytest.approx(wanted.probability, abs=1e-6)


def test_other_covariances_suggest_as_well() -> None:
    for covariance in ("full", "kronecker", "low_rank", "diagonal"):
        posterior = bc.fit(TASK, replace(SETTINGS, covariance=covariance)).posterior
        found = suggest(posterior, TASK.query_rows, 4)
        assert len(set(found.rows)) == 4 and found.information[0] >= max(found.information[1:])


def test_a_small_pool_gives_all_it_has() -> None:
    found = suggest(POSTERIOR, TASK.query_features[:3], 10)
    assert sorted(found.rows) == [0, 1, 2] and "10 were asked for and there are 3" in found.notes[0]
    table = found.table(["a.png", "b.png", "c.png"])
    assert [row["rank"] for row in table] == [1, 2, 3]
    assert {row["input"] for row in table} == {"a.png", "b.png", "c.png"}
    assert found.table()[0]["input"] == f"row {found.rows[0]}"


def test_probabilities_are_those_of_predict() -> None:
    found = suggest(POSTERIOR, TASK.query_rows, 3)
    probabilities = POSTERIOR.predict(TASK.query_features[list(found.rows)]).probabilities
    assert found.probability == pytest.approx(probabilities.amax(-1).tolist(), abs=EXACT)
    assert found.predicted == tuple(TASK.class_names[index] for index in probabilities.argmax(-1))


@pytest.mark.parametrize("k", [0, -3])
def test_less_than_one_is_refused(k: int) -> None:
    with pytest.raises(UserError, match="at least 1"):
        suggest(POSTERIOR, TASK.query_rows, k)


def test_what_cannot_be_suggested_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="pool is empty"):
        suggest(POSTERIOR, Rows(TASK.query_features[:0]))
    with pytest.raises(UserError, match="no such worth"):
        suggest(POSTERIOR, TASK.query_rows, by="luck")
    for engine in ("map", "zero_shot"):
        point = bc.fit(TASK, replace(SETTINGS, engine=engine)).posterior
        with pytest.raises(UserError, match=f"{engine}: its posterior has no covariance"):
            suggest(point, TASK.query_rows)
    monkeypatch.setattr("bayes_clip.suggesting.MOST_GRAM", 12)
    with pytest.raises(UserError, match="at most 2 at once"):
        suggest(POSTERIOR, TASK.query_rows, 3)


def test_picks_end_where_the_candidates_do() -> None:
    inputs = POSTERIOR.as_inputs(TASK.query_features[:4])
    picks = greedy(candidates_of(POSTERIOR, inputs), keys_of(inputs), 4)
    assert sorted(pick.index for pick in picks) == [0, 1, 2, 3]
