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
# # Labels that keep coming: streams, new classes, drift
#
# **The question.** Labels seldom come all at once. Can a posterior learn the next ones without the earlier
# ones at hand, take in a class that nobody had thought of, and forget what is no longer true?

# %%
# %matplotlib inline
import numpy as np
import pandas as pd
import torch
from PIL import Image

import bayes_clip as bc

digits = bc.load_task("digits_rotated")
drawn = bc.few_shot(digits, shots=8, seed=0)
TEXT = {
    "class_names": digits.class_names,
    "text_features": digits.text_features,
    "logit_scale": digits.logit_scale,
}


def labelled(features, labels, name="labels"):
    """A task to learn from, and the query pictures to measure on."""
    return bc.make_task(name, features, labels, digits.query_features, digits.query_labels, **TEXT)


def accuracy(posterior):
    """Share of the query pictures that are right."""
    right = posterior.predict(digits.query_features).probabilities.argmax(1) == digits.query_labels
    return float(right.double().mean())


# %% [markdown]
# ## In pieces, or at once?
#
# Eighty labels in random order: the first twenty are fitted, the rest come in three updates. An update sees
# only its own labels.

# %%
order = np.random.default_rng(0).permutation(len(drawn.support_labels))
features, labels = drawn.support_features[order], drawn.support_labels[order]
pieces = np.split(np.arange(len(order)), [20, 40, 60])
as_they_come = bc.FitSettings(order="given", batch_size=20, prior_variance=0.04)

posterior = bc.fit(labelled(features[pieces[0]], labels[pieces[0]]), as_they_come).posterior
learned = [(len(pieces[0]), accuracy(posterior))]
for piece in pieces[1:]:
    step = bc.update(posterior, labelled(features[piece], labels[piece]))
    posterior = step.posterior
    learned.append((posterior.source.support_rows, accuracy(posterior)))
pd.DataFrame(learned, columns=["labels", "accuracy"]).round(3)

# %%
at_once = bc.fit(labelled(features, labels), as_they_come).posterior
same = bool((at_once.weights.mean == posterior.weights.mean).all())
print(f"the weights are those of one fit to all eighty labels, bit for bit: {same}")
assert same

# %% [markdown]
# **Yes, and exactly so** where the pieces end where batches end. Nothing of the earlier labels was kept:
# the belief *is* what they said.
#
# ## A class that nobody had thought of
#
# A posterior that knows zero to eight meets nines. First: does it notice?

# %%
from bayes_clip.report.novelty_plots import novelty_histograms

NINE = 9
known = drawn.support_labels != NINE
nine_classes = bc.make_task(
    "zero to eight",
    drawn.support_features[known],
    drawn.support_labels[known],
    digits.query_features[digits.query_labels != NINE],
    digits.query_labels[digits.query_labels != NINE],
    class_names=digits.class_names[:NINE],
    text_features=digits.text_features[:NINE],
    logit_scale=digits.logit_scale,
)
fits = {passes: bc.fit(nine_classes, bc.FitSettings(passes=passes)).posterior for passes in (1, 2)}
before = fits[1]
nines = digits.query_features[digits.query_labels == NINE]
novelty_histograms(
    {"ekf": before.predict(nine_classes.query_features).novelty.numpy()},
    {"ekf": before.predict(nines).novelty.numpy()},
)

# %% [markdown]
# A nine is not outlandish, it is much like the digits that the model knows: the scores overlap, and the
# AUROC above says how much. That is the honest limit of novelty, and why a new class needs labels. It
# enters by its name, around its text embedding, and nothing else changes until its labels come. Here are
# four.

# %%
four = torch.nonzero(~known)[:4, 0]
four_nines = bc.make_task(
    "nines",
    drawn.support_features[four],
    [0] * 4,
    class_names=["nine"],
    text_features=digits.text_features[NINE:],
    logit_scale=digits.logit_scale,
    partial=True,
)
steps = {passes: bc.update(fitted, four_nines) for passes, fitted in fits.items()}
all_labels = drawn.with_support(torch.cat([torch.nonzero(known)[:, 0], four]))


def nines_and_others(posterior):
    right = posterior.predict(digits.query_features).probabilities.argmax(1) == digits.query_labels
    nine = digits.query_labels == NINE
    return float(right[nine].double().mean()), float(right[~nine].double().mean())


arms = {
    "before": before,
    "after four nines, one pass": steps[1].posterior,
    "after four nines, two passes": steps[2].posterior,
    "all labels fitted at once": bc.fit(all_labels).posterior,
}
table = {name: nines_and_others(posterior) for name, posterior in arms.items()}
pd.DataFrame(table, index=["nines right", "others right"]).T.round(3)

# %% [markdown]
# **Look at the second row.** Four labels of one class say what *is* a nine and nothing of what is not. A
# one-pass filter has no earlier rows left to tell it, and takes nearly everything for a nine. Fitted with
# `passes=2` a posterior keeps its rows and what each said, and an update sweeps over old and new ones
# together: that is close to fitting all labels at once. So: feed a new class together with labels of the
# others, or keep the rows.

# %%
assert table["after four nines, one pass"][1] < 0.5 < table["after four nines, two passes"][1]
without = bc.update(steps[2].posterior, remove=["nine"]).posterior
print(f"{steps[2]}\nand removed again: {without.class_names == before.class_names}")

# %% [markdown]
# ## Classes that change their looks
#
# Now the digits turn, from upright to 90 degrees, while the labels come: twelve batches of fifty. A static
# filter believes that all labels are of one piece, and averages over what was and what is.
# `process_noise="auto"` lets the filter choose how fast to forget, by how well it predicts each batch
# *before* it learns it.

# %%
from bayes_clip.data.digit_images import digit_images

BATCHES, ROWS = 12, 50
images, truth = digit_images()
chosen = np.random.default_rng(0).permutation(len(truth))[: BATCHES * ROWS]
angles = np.repeat(np.linspace(0, 90, BATCHES), ROWS)
turned = [
    Image.fromarray(images[row]).rotate(angle, Image.Resampling.BICUBIC)
    for row, angle in zip(chosen, angles, strict=True)
]
stream = labelled(bc.load_backbone().encode_images(turned), truth[chosen], "turning digits")
streamed = {
    name: bc.fit(stream, bc.FitSettings(order="given", batch_size=ROWS, process_noise=noise))
    for name, noise in {"static": None, "forgetting": "auto"}.items()
}
print(*streamed["forgetting"].notes)

# %%
from matplotlib.figure import Figure

from bayes_clip.report.style import ENGINE_COLOURS, MUTED, house_style

scores = {
    name: [-float(step.prequential_score) / step.rows for step in fit.steps] for name, fit in streamed.items()
}
with house_style():
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    looks = {"static": (MUTED, "--", "s"), "forgetting": (ENGINE_COLOURS["ekf"], "-", "o")}
    for name, (shade, line, mark) in looks.items():
        axes.plot(angles[::ROWS], scores[name], color=shade, linestyle=line, marker=mark, label=name)
    axes.set(xlabel="degrees the digits have turned", ylabel="nats a label, before it is learned")
    axes.set_title("What the next batch costs")
    axes.legend()
figure

# %%
for name, values in scores.items():
    late = np.mean(values[-4:])
    print(f"{name:>10}: {np.mean(values):.2f} nats a label, {late:.2f} over the last four batches")
assert np.mean(scores["forgetting"]) < np.mean(scores["static"])

# %% [markdown]
# **The answer.** Forgetting costs a little while nothing changes and pays as soon as something does. Two
# fair warnings. The rate was chosen by its score over this whole stream, so the picture is a little kind to
# it; [the study over ten streams](../results/drifting_labels_digits.md) has arms that choose before every
# batch, without looking ahead. And where all recent labels can be kept, it finds a sliding window of
# Laplace refits better still when the change is slow.
#
# Next: [your own pictures, and your own model](05_your_own.ipynb).
