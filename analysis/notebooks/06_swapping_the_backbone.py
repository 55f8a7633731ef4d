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
# # Another backbone
#
# **The question.** Next year's encoder is better. Its features have another width and other axes, so no
# weight that was learned fits it. Do all the labels have to be asked for again?
#
# The old encoder is `pocket_clip`; the new one is its second version, which stands beside the study of this
# ([`analysis/backbone_update/`](../backbone_update/table.py)). For two of open_clip's models nothing
# changes but the names.

# %%
# %matplotlib inline
from pathlib import Path

import pandas as pd
import torch

import bayes_clip as bc
from bayes_clip.evaluation.scoring import score_posterior

beside = Path(bc.__file__).parents[1] / "analysis" / "backbone_update"
old_encoder = bc.load_backbone()
new_encoder = bc.load_backbone(
    str(beside / "pocket_clip_v2.json"), str(beside / "pocket_clip_v2.safetensors")
)
old = bc.load_task("digits_rotated", old_encoder)
new = bc.load_task("digits_rotated", new_encoder)
print(old, new, sep="\n")

# %% [markdown]
# ## What was learned on the old one
#
# Four labels per class.

# %%
seen = bc.few_shot(old, shots=4, seed=0)
posterior = bc.fit(seen).posterior


def scores(posterior, task):
    row = score_posterior(posterior, task).row
    return {name: row[name] for name in ("accuracy", "nll", "ece", "ood_auroc")}


arms = {"fitted on the old encoder, used there": scores(posterior, old)}
try:
    posterior.predict(new.query_features)
except bc.UserError as refusal:
    print("on the new one as it is:", refusal)

# %% [markdown]
# ## Carry it over
#
# What is needed is no label but *pictures*, which both encoders have seen: here the 400 of the support
# pool. They tell how the two spaces correspond, and how much of the one the other cannot express. What the
# labels changed about the old zero-shot classifier is carried through that map, and is put around the new
# encoder's own zero-shot; what the map cannot express becomes process noise. It is the predict step of a
# Kalman filter, between encoders instead of between batches ([`carried.py`](../../bayes_clip/carried.py)).

# %%
moved = bc.transport(
    posterior, bc.destination(posterior, new_encoder), first=old.support_rows, second=new.support_rows
)
moved

# %% [markdown]
# Against it: the new encoder without labels, and a fit to the same forty labelled pictures, if they are
# still there to be encoded anew.

# %%
anew = bc.few_shot(new, shots=4, seed=0)
arms["new encoder, zero-shot"] = scores(bc.fit(anew, bc.FitSettings(engine="zero_shot")).posterior, new)
arms["new encoder, transported: no label, no old picture"] = scores(moved.posterior, new)
arms["new encoder, fitted again to the old labels"] = scores(bc.fit(anew).posterior, new)
pd.DataFrame(arms).T.astype(float).round(3)

# %% [markdown]
# ## And go on
#
# What was carried is a prior like any other: `bc.update` goes on with labels on the new encoder. One new
# label per class, on top of what was carried and alone:

# %%
five = bc.few_shot(new, shots=5, seed=0)  # its first four are the ones that the old encoder has seen
fresh = five.with_support(torch.arange(4, len(five.support_labels), 5))
both = bc.update(moved.posterior, fresh).posterior
more = {
    "transported": arms["new encoder, transported: no label, no old picture"],
    "transported, and one new label a class": scores(both, new),
    "one new label a class alone": scores(bc.fit(fresh).posterior, new),
}
pd.DataFrame(more).T.astype(float).round(3)

# %%
from bayes_clip.evaluation.metrics import confidence_and_correct
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.report.calibration_plots import reliability_diagram

shown = {
    "zero-shot": bc.fit(anew, bc.FitSettings(engine="zero_shot")).posterior,
    "transported": moved.posterior,
    "and one label": both,
}
reliability_diagram(
    {
        name: reliability(
            *confidence_and_correct(one.predict(new.query_features).probabilities, new.query_labels)
        )
        for name, one in shown.items()
    }
)

# %% [markdown]
# **The answer.** No: unlabelled pictures carry most of it.

# %%
floor, carried, again = (
    arms[name]["accuracy"]
    for name in (
        "new encoder, zero-shot",
        "new encoder, transported: no label, no old picture",
        "new encoder, fitted again to the old labels",
    )
)
print(f"transport recovers {(carried - floor) / (again - floor):.0%} of the accuracy that refitting gains")
assert carried > floor

# %% [markdown]
# Two things do not come along: what was held out for verdicts is of the old encoder, so in/out verdicts and
# abstention need labels on the new one; and programs that reach into the encoder can only be carried where
# their weights mean the same in both. On the command line:
#
#     bayes-clip transport posterior/ --to NEW --pretrained TAG --unlabelled photos/ --out newer/
#     bayes-clip update newer/ more_photos/ --backbone NEW --pretrained TAG
