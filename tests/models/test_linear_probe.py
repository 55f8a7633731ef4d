from __future__ import annotations

import pyro
import torch
from pyro.infer import Predictive
from small_problems import assert_near, tiny_task

from bayes_clip.model import AdapterModel, Context, find_model

TASK = tiny_task()
CONTEXT = Context(TASK.text_features, TASK.class_names, TASK.logit_scale)


def probe(prior_variance: float = 0.04) -> AdapterModel:
    return find_model("linear_probe")(CONTEXT, prior_variance)


def test_logits_at_the_prior_mean_are_those_of_zero_shot_clip() -> None:
    logits = probe().logits({"class_weights": TASK.text_features}, TASK.query_features)
    assert_near(logits, TASK.logit_scale * TASK.query_features @ TASK.text_features.T, 1e-6)


def test_the_prior_is_centred_on_the_text_with_its_variance() -> None:
    (site,) = probe(0.04).prior().values()
    assert torch.equal(site.mean, TASK.text_features)
    assert_near(site.variance, torch.full_like(TASK.text_features, 0.04), 1e-6)
    assert site.event_shape == TASK.text_features.shape


def test_logits_broadcast_over_draws_of_the_weights() -> None:
    weights = torch.randn(5, 2, *TASK.text_features.shape)
    logits = probe().logits({"class_weights": weights}, TASK.query_features)
    assert logits.shape == (5, 2, *TASK.query_labels.shape, 3)
    alone = probe().logits({"class_weights": weights[3, 1]}, TASK.query_features)
    assert_near(logits[3, 1], alone, 1e-5)


def test_its_log_density_is_the_prior_times_the_categorical() -> None:
    inputs, labels = TASK.support_features, TASK.support_labels
    model = probe()
    trace = pyro.poutine.trace(model).get_trace(inputs, labels)
    weights = trace.nodes["class_weights"]["value"]
    prior = torch.distributions.Normal(TASK.text_features, 0.2).log_prob(weights).sum()
    logits = TASK.logit_scale * inputs @ weights.T
    fit = logits.log_softmax(-1)[range(len(labels)), labels].sum()
    assert_near(trace.log_prob_sum(), prior + fit, 1e-5)


def test_labels_are_drawn_where_none_are_given() -> None:
    draws = Predictive(probe(), num_samples=7)(TASK.query_features)
    assert draws["labels"].shape == (7, len(TASK.query_labels))
    assert set(draws["labels"].unique().tolist()) <= {0, 1, 2}
