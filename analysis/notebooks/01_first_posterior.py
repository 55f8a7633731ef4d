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
# # A first posterior in ten lines
#
# **The question.** Four labelled pictures of each class, and a model must say two things of every new
# picture: what it is, and whether it can be believed. What does a *distribution* over the weights of a
# classifier know that one set of weights does not?
#
# The pictures are scikit-learn's real handwritten digits, turned by 90 degrees so that the zero-shot
# classifier of `pocket_clip`, the small CLIP inside the package, does not know them. Nothing is downloaded.

# %%
# %matplotlib inline
import bayes_clip as bc

task = bc.load_task("digits_rotated")
drawn = bc.few_shot(task, shots=4, seed=0)  # four labels per class; the rest of the pool is never seen
fitted = bc.fit(drawn, bc.FitSettings(engine="ekf"))  # a Kalman filter over the labels
prediction = fitted.posterior.predict(task.query_features)
fitted

# %% [markdown]
# That was it. `fitted.posterior` is a Pyro guide; `prediction` holds a row per picture.

# %%
import pandas as pd

names = task.class_names
pd.DataFrame(
    {
        "truth": [names[label] for label in task.query_labels[:6]],
        "answer": [names[best] for best in prediction.probabilities[:6].argmax(1)],
        "probability": prediction.probabilities[:6].amax(1),
        "epistemic": prediction.epistemic[:6],
        "aleatoric": prediction.aleatoric[:6],
        "novelty": prediction.novelty[:6],
    }
).round(3)

# %% [markdown]
# `aleatoric` is doubt that would stay if the weights were known, `epistemic` is doubt that more labels
# would remove (both in nats); `novelty` says how unlike the labelled pictures this one is.
#
# ## What did the forty labels buy?

# %%
point = bc.fit(drawn, bc.FitSettings(engine="map")).posterior  # the same model, but its mode alone
zero_shot = bc.fit(drawn, bc.FitSettings(engine="zero_shot")).posterior

for name, posterior in {"zero_shot": zero_shot, "map": point, "ekf": fitted.posterior}.items():
    right = posterior.predict(task.query_features).probabilities.argmax(1) == task.query_labels
    print(f"{name:>9}: {right.double().mean():.1%} of {len(right)} pictures right")

# %% [markdown]
# The class names alone are of little use for digits that lie on their side; the labels teach the rest. The
# point and the filter answer about equally well. Look at what each is most and least sure about:

# %%
from bayes_clip.report.picture_plots import sure_and_unsure

sure_and_unsure(
    task.query_images.numpy(), prediction.probabilities.numpy(), task.query_labels.numpy(), names, count=5
)

# %% [markdown]
# ## Which of them notices what is no digit at all?
#
# The task brings pictures of shapes, textures, photographs and noise. A classifier has to put each into one
# of ten classes. Does its score give the mistake away?

# %%
from bayes_clip.evaluation.metrics import auroc
from bayes_clip.report.novelty_plots import novelty_histograms

engines = {"map": point, "ekf": fitted.posterior}
inside = {name: each.predict(task.query_features).novelty.numpy() for name, each in engines.items()}
outside = {name: each.predict(task.ood_features).novelty.numpy() for name, each in engines.items()}
novelty_histograms(inside, outside)

# %% [markdown]
# **The answer.** One set of weights has no memory of where its knowledge came from: the only doubt it can
# voice is a flat softmax, and pictures of nothing it knows get confident answers. The filter's covariance
# knows in which directions no label has spoken.

# %%
found = {name: auroc(inside[name], outside[name]) for name in engines}
for name, value in found.items():
    print(f"{name}: a picture of no digit looks more novel than a digit in {value:.1%} of pairs")
assert found["ekf"] > found["map"], "the text above says so"

# %% [markdown]
# ## Keep it

# %%
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    fitted.posterior.save(f"{folder}/posterior")
    again = bc.load_posterior(f"{folder}/posterior")
same = (again.predict(task.query_features).probabilities == prediction.probabilities).all()
print(f"{again}\nthe loaded one says the same: {bool(same)}")

# %% [markdown]
# Next: [where the engines agree and where they do not](02_comparing_engines.ipynb).
