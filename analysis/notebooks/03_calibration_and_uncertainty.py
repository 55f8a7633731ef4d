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
# # What a probability is worth
#
# **The question.** A model says "90 %". Is it right nine times out of ten? What does it gain by staying
# silent when unsure? Does it notice that it was asked something it cannot know? And if it promises "at most
# 10 % wrong", does the promise hold on pictures that had no part in making it?

# %%
# %matplotlib inline
import pandas as pd
from torch import Tensor

import bayes_clip as bc
from bayes_clip.evaluation import metrics

task = bc.load_task("digits_rotated")
drawn = bc.few_shot(task, shots=4, seed=0)
posteriors = {
    name: bc.fit(drawn, bc.FitSettings(engine=name)).posterior for name in ("zero_shot", "map", "ekf")
}
predictions = {name: posterior.predict(task.query_features) for name, posterior in posteriors.items()}

# %% [markdown]
# ## Is it right as often as it says?

# %%
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.report.calibration_plots import reliability_diagram

answers = {
    name: metrics.confidence_and_correct(prediction.probabilities, task.query_labels)
    for name, prediction in predictions.items()
}
reliability_diagram({name: reliability(*answer) for name, answer in answers.items()})

# %% [markdown]
# A point on the dashed line can be taken at its word; below it the model claims too much, above it too
# little. The band is where a perfectly calibrated model would lie with as few pictures in a bin, and the
# *floor* in the title the ECE that such a model would show: an ECE is never zero, so compare it with its
# floor.

# %%
for name, answer in answers.items():
    found = reliability(*answer)
    outside = (found.accuracy < found.lower) | (found.accuracy > found.upper)
    print(
        f"{name:>9}: says {answer[0].mean():.0%} on average and is right {answer[1].mean():.0%} of the time; "
        f"{outside.sum()} of {(found.counts > 0).sum()} bins outside the band"
    )

# %% [markdown]
# ## What does it gain by staying silent?
#
# Answer the surest pictures first. How many of the answers are wrong?

# %%
from bayes_clip.evaluation.selective import risk_coverage
from bayes_clip.report.calibration_plots import risk_coverage_plot

curves = {name: risk_coverage(*answer) for name, answer in answers.items()}
risk_coverage_plot(curves)

# %%
for name, curve in curves.items():
    half = len(curve.risk) // 2
    print(
        f"{name:>9}: {curve.risk[-1]:.1%} wrong if it answers all, {curve.risk[half]:.1%} if it answers half"
    )

# %% [markdown]
# ## Two kinds of doubt
#
# `aleatoric` uncertainty is the entropy that is left if the weights were known; `epistemic` is the part
# that comes from not knowing the weights (their sum is the entropy of the average prediction). Only a
# posterior has the second kind.

# %%
ekf, outsiders = predictions["ekf"], posteriors["ekf"].predict(task.ood_features)
right = ekf.probabilities.argmax(1) == task.query_labels


def mean(values: Tensor) -> str:
    return f"{values.mean():.2f}"


groups = {
    "right": (ekf, right),
    "wrong": (ekf, ~right),
    "no digit": (outsiders, outsiders.novelty == outsiders.novelty),
}
pd.DataFrame(
    {
        "pictures": [int(kept.sum()) for _, kept in groups.values()],
        "confidence": [mean(said.probabilities.amax(1)[kept]) for said, kept in groups.values()],
        "aleatoric, nats": [mean(said.aleatoric[kept]) for said, kept in groups.values()],
        "epistemic, nats": [mean(said.epistemic[kept]) for said, kept in groups.values()],
        "novelty": [mean(said.novelty[kept]) for said, kept in groups.values()],
    },
    index=list(groups),
)

# %% [markdown]
# `novelty` is the score that tells the outsiders apart: variance minus mean of the winning logit. For
# engines without a covariance it is one minus the largest probability.

# %%
from bayes_clip.report.novelty_plots import novelty_histograms

shown = ("map", "ekf")
novelty_histograms(
    {name: predictions[name].novelty.numpy() for name in shown},
    {name: posteriors[name].predict(task.ood_features).novelty.numpy() for name in shown},
)

# %% [markdown]
# ## From scores to promises
#
# Nobody with forty labels has a validation set. `hold_out` leaves parts of the forty out in turn and looks
# at what the fits without them say: that is enough for three promises, each of which is now put to the test
# on the query pictures, which had no part in it.

# %%
from bayes_clip.evaluation.holdout import hold_out, sets_of

FALSE_ALARMS, RISK, COVERAGE = 0.05, 0.2, 0.9
held_out = hold_out(drawn, posteriors["ekf"])
limit = held_out.novelty_limit(FALSE_ALARMS)
abstention = held_out.confidence_limit(RISK)
sets = sets_of(posteriors["ekf"], held_out, task.query_features, COVERAGE)

confidence, correct = answers["ekf"]
answered = confidence >= abstention.threshold
inside = sets.members[range(len(correct)), task.query_labels]
pd.DataFrame(
    [
        (
            "digits called out",
            f"at most {limit.false_alarms:.0%}",
            f"{(ekf.novelty > limit.value).double().mean():.1%}",
        ),
        ("outsiders called out", "", f"{(outsiders.novelty > limit.value).double().mean():.1%}"),
        ("answered", "", f"{answered.mean():.1%}"),
        ("wrong among the answered", f"about {RISK:.0%}", f"{1 - correct[answered].mean():.1%}"),
        ("truth in the prediction set", f"at least {COVERAGE:.0%}", f"{inside.mean():.1%}"),
        ("classes in a set", "", f"{sets.members.sum(1).mean():.1f} on average"),
    ],
    columns=["what", "promised", "on the query pictures"],
)

# %% [markdown]
# **The answer.** Read the table row by row. The fits behind the promises saw fewer labels than the final
# one, so false alarms and prediction sets err on the careful side; the risk is estimated from forty rows,
# and with so few it can miss either way. And every promise is about pictures *like the labelled ones*.
# Whether they are kept on average over draws is [measured](../promises_kept.py); on the command line the
# three are `bayes-clip predict POSTERIOR IMAGES --false-alarms 0.05 --abstain-at 0.2 --coverage 0.9`.
#
# Next: [labels that keep coming](04_streaming_and_drift.ipynb).
