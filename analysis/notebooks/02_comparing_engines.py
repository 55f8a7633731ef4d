# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # EKF, Laplace, VI and NUTS on one model
#
# **The question.** The model is written down once, in Pyro; every engine reads it from there. So all of
# them aim at the same posterior. What do they agree on, what not, and why?
#
# We begin with a model so small that the truth can be drawn: two weights, so the posterior is a picture.
# Then we look whether the lesson holds for the 1,280 weights of a real head.

# %%
# %matplotlib inline
import arviz as az
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib.figure import Figure
from pyro.distributions import Bernoulli, Normal
from torch.nn.functional import normalize

import bayes_clip as bc

# %% [markdown]
# ## Two weights: is this rotated digit a five or a six?
#
# Four labels of each. Of every feature vector we keep its angle in the plane of the two directions in which
# the labelled pictures differ most.

# %%
digits = bc.load_task("digits_rotated")
few = bc.few_shot(digits, shots=4, seed=0)
PAIR = torch.tensor([5, 6])


def only_the_pair(features, labels):
    kept = torch.isin(labels, PAIR)
    return features[kept], torch.searchsorted(PAIR, labels[kept])


support, support_labels = only_the_pair(few.support_features, few.support_labels)
query, query_labels = only_the_pair(digits.query_features, digits.query_labels)
centre = support.mean(0)
plane = torch.linalg.svd(support - centre, full_matrices=False).Vh[:2].T
small = bc.make_task(
    "five or six",
    normalize((support - centre) @ plane, dim=-1),
    support_labels,
    normalize((query - centre) @ plane, dim=-1),
    query_labels,
    class_names=["five", "six"],
)
small

# %% [markdown]
# The model, as a plain Pyro function. Its prior is either narrow or wide: a logit has a prior standard
# deviation of 1 or of 10. Heads on CLIP features work best where it is about 10 (see [the
# study](../results/prior_variance_regret_dtd.md)).


# %%
def five_or_six(width):
    def model(inputs, labels=None):
        w = pyro.sample("w", Normal(torch.zeros(2), width).to_event(1))
        with pyro.plate("data", len(inputs)):
            observed = None if labels is None else labels.float()
            return pyro.sample("labels", Bernoulli(logits=inputs @ w), obs=observed)

    return model


WIDTHS = {"narrow prior": 1.0, "wide prior": 10.0}
ENGINES = {
    "nuts": bc.FitSettings(engine="nuts"),
    "ekf": bc.FitSettings(engine="ekf", covariance="full", predictive="monte_carlo"),
    "laplace": bc.FitSettings(engine="laplace", covariance="full", predictive="monte_carlo"),
    "vi": bc.FitSettings(engine="vi", covariance="low_rank", predictive="monte_carlo"),
}
fits = {
    (prior, engine): bc.fit(small, settings, program=five_or_six(width))
    for prior, width in WIDTHS.items()
    for engine, settings in ENGINES.items()
}

# %% [markdown]
# `bc.to_arviz` turns each of them into the same ArviZ object, NUTS or not. Draws of the weights, over the
# exact density of the posterior on a grid:

# %%
data = {
    key: bc.to_arviz(fit.posterior, small.support_features, small.support_labels) for key, fit in fits.items()
}


def exact_log_density(first, second, width):
    w = np.stack([first, second], -1)
    logits = w @ small.support_features.numpy().T
    signs = 2 * small.support_labels.numpy() - 1
    return -np.logaddexp(0, -signs * logits).sum(-1) - (w**2).sum(-1) / (2 * width**2)


# %%
from bayes_clip.report.style import MUTED, colour, house_style

with house_style():
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    for (prior, width), row in zip(WIDTHS.items(), figure.subplots(2, 4), strict=True):
        draws = {engine: np.asarray(data[prior, engine].posterior["w"])[0] for engine in ENGINES}
        low, high = draws["nuts"].min(0) - 0.3 * width, draws["nuts"].max(0) + 0.3 * width
        first, second = np.meshgrid(*np.linspace(low, high, 150).T)
        density = np.exp(exact_log_density(first, second, width))
        for (engine, w), axes in zip(draws.items(), row, strict=True):
            axes.plot(*w.T, ".", color=colour(engine), markersize=3, alpha=0.6)
            axes.contour(first, second, density, 5, colors=MUTED, linewidths=0.9)
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            axes.set_title(f"{engine}, {prior}")
figure

# %% [markdown]
# Under the narrow prior the exact posterior (the contours) is nearly a Gaussian, and every engine finds it.
# Under the wide one it is not: a line can tell these eight labels apart, so the likelihood is a cliff on
# one side and a plateau on the other, and only the prior ends the plateau. The posterior is a wedge. NUTS
# fills it. A Gaussian cannot: Laplace sits on the mode, close to the edge, and spills over it. So does the
# filter, which averages over less and less of its own spread as the prior widens
# ([why](../../bayes_clip/inference/README.md)). VI averages over all of it, and moves inside.
#
# How far is each from NUTS, in what it says of new pictures?

# %%
from bayes_clip.evaluation import metrics


def said(key):
    return fits[key].posterior.predict(small.query_features).probabilities.numpy()


truth = small.query_labels.numpy()
table = pd.DataFrame(
    {
        "prior": prior,
        "engine": engine,
        "seconds": fits[prior, engine].seconds,
        "mean |w|": float(np.linalg.norm(np.asarray(data[prior, engine].posterior["w"])[0], axis=-1).mean()),
        "distance from NUTS": np.abs(said((prior, engine)) - said((prior, "nuts"))).sum(1).mean() / 2,
        "accuracy": metrics.accuracy(said((prior, engine)), truth),
        "NLL": metrics.nll(said((prior, engine)), truth),
    }
    for prior, engine in fits
)
table.round(3)

# %% [markdown]
# The distance is the total variation between two answers: how much probability they place otherwise. **What
# agrees**: the class that wins, and, under a narrow prior, everything. **What does not**: how sure one may
# be and how long the weights are, as soon as the prior is wide.

# %%
distance = table.set_index(["engine", "prior"])["distance from NUTS"]
for engine in ("ekf", "laplace", "vi"):
    narrow, wide = (distance[engine, prior] for prior in WIDTHS)
    print(f"{engine:>7}: {narrow:.3f} from NUTS under the narrow prior, {wide:.3f} under the wide one")
assert all(distance[engine, "narrow prior"] < 0.05 for engine in ENGINES)
assert all(distance[engine, "wide prior"] > distance["vi", "wide prior"] for engine in ("ekf", "laplace"))

# %% [markdown]
# ## What ArviZ adds
#
# Every group is there, so ArviZ's own checks run on posteriors that no Markov chain made. Leave-one-out
# predictive accuracy, from the labelled pictures alone (larger is better):

# %%
import warnings

warnings.filterwarnings("ignore", message="Estimated shape parameter")  # the table shows it


def leave_one_out(key):
    """ArviZ's estimate, and the largest of its diagnostics; 0.x and 1.x name the first differently."""
    found = az.loo(data[key])
    elpd = found.elpd_loo if hasattr(found, "elpd_loo") else found.elpd
    return {"nats": float(elpd), "largest k": float(np.max(np.asarray(found.pareto_k)))}


pd.DataFrame([{"prior": key[0], "engine": key[1], **leave_one_out(key)} for key in data]).round(2)

# %% [markdown]
# `k` is Pareto-smoothed importance sampling's own diagnostic: up to 0.7 an estimate can be trusted. Under
# the wide prior it says itself that it cannot, most loudly for the Gaussians that spill over the cliff,
# where a few draws give a label next to no chance. With draws that are independent `r_hat` and trace plots
# have nothing to say: look at `k`, and at coverage (`bayes-clip check`).
#
# ## Does the lesson hold for a real head?
#
# All ten digits, 128 features each, the prior variance chosen by each engine from the labels. NUTS is left
# out: with as many weights a chain takes far longer than a notebook should.

# %%
comparison = bc.compare([digits], engines=["zero_shot", "map", "ekf", "laplace", "vi"], shots=[4], seeds=[0])
rows = pd.DataFrame(bc.summarise(comparison))
rows[["engine", "covariance", "accuracy", "nll", "ece", "ood_auroc", "prior_variance", "fit_seconds"]].round(
    3
)

# %%
from bayes_clip.report.arms import settings_of
from bayes_clip.report.engine_plots import SHOWN, engine_comparison

(setting,) = settings_of(comparison)
engine_comparison({name: setting.values(name) for name, _ in SHOWN}, list(setting.arms))

# %% [markdown]
# **The answer.** On a real head the engines differ little in accuracy, more in NLL, and most in noticing
# what is novel, where those that keep a covariance are far ahead of the mode. But the prior variance of a
# logit that they choose is in the regime of the lower row above, where no Gaussian *is* the posterior. So
# use them for what is measured, probabilities and novelty scores, and do not read their standard deviations
# as the truth about a weight. How far each is off is what `bayes-clip check` measures, and what `compare`
# warns of:

# %%
variances = {
    row["engine"]: row["prior_variance"] for row in bc.summarise(comparison) if row["prior_variance"]
}
for engine, variance in variances.items():
    print(f"{engine:>7}: prior standard deviation of a logit {variance**0.5 * digits.logit_scale:.0f}")
print(*comparison.notes, sep="\n")

# %% [markdown]
# Next: [what a probability is worth](03_calibration_and_uncertainty.ipynb).
