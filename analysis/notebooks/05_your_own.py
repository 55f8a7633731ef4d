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
# # Your own pictures, your own model
#
# **The question.** The data is a folder of pictures, and you know something about its classes that no
# built-in adapter knows. How do you write that down, and does it pay?
#
# ## A folder of pictures
#
# One folder per class, below `train/` and `test/` if there are both. Here they are rendered: four shapes in
# four colours, lying on their side.

# %%
# %matplotlib inline
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import bayes_clip as bc
from bayes_clip.data.rendered_shapes import render_shape

photos = Path("photos")
rng = np.random.default_rng(0)
for side, count in {"train": 4, "test": 20}.items():
    for colour in ("red", "green", "blue", "yellow"):
        for shape in ("star", "ring", "heart", "cross"):
            folder = photos / side / f"{colour} {shape}"
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(render_shape(shape, colour, rng).image).rotate(90).save(
                    folder / f"{number}.png"
                )

task = bc.load_task(photos)
task

# %%
from bayes_clip.report.picture_plots import sure_and_unsure

drawn = bc.few_shot(task, shots=2, seed=0)
zero_shot = bc.fit(drawn, bc.FitSettings(engine="zero_shot")).posterior.predict(task.query_features)
sure_and_unsure(
    task.query_images.numpy(), zero_shot.probabilities.numpy(), task.query_labels.numpy(), task.class_names, 5
)

# %% [markdown]
# That is `pocket_clip` without labels. Any open_clip model does the same: `bc.load_backbone("ViT-B-32",
# "laion2b_s34b_b79k")`, handed to `bc.load_task(photos, backbone=...)`.
#
# ## A model of your own
#
# What we know: a class is a colour and a shape. A label of a red star should teach something about red
# hearts. The linear probe cannot: its classes know nothing of each other. So we write the sharing down, as
# a file in the manner of Stan: a prior and logits, nothing else.

# %%
program = '''"""Classes that are a colour and a shape share what is learned of either."""

import torch
from pyro.distributions import Normal

from bayes_clip.model import AdapterModel


class Shared(AdapterModel):
    """w of "red star" = text + U[red] + V[star], with U, V ~ N(0, v/2 I); logits = s X W^T."""

    def __init__(self, context, prior_variance):
        super().__init__(context, prior_variance)
        colours, shapes = zip(*[name.split() for name in self.class_names])
        self.colour = torch.tensor([sorted(set(colours)).index(colour) for colour in colours])
        self.shape = torch.tensor([sorted(set(shapes)).index(shape) for shape in shapes])

    def prior(self):
        zero, deviation = self.text_features.new_zeros(()), (self.prior_variance / 2) ** 0.5
        sizes = {"colours": int(self.colour.max()) + 1, "shapes": int(self.shape.max()) + 1}
        shapes = {name: (size, self.text_features.shape[1]) for name, size in sizes.items()}
        return {name: Normal(zero, deviation).expand(shape).to_event(2) for name, shape in shapes.items()}

    def logits(self, weights, inputs):
        change = weights["colours"][..., self.colour, :] + weights["shapes"][..., self.shape, :]
        return self.logit_scale * inputs @ (self.text_features + change).mT
'''
_ = Path("shared.py").write_text(program)

# %% [markdown]
# Every engine reads the sites, their shapes and the likelihood from the program itself. Derivatives are
# `torch.func`'s; that the logits are linear in the weights is noticed, and used.

# %%
comparison = bc.compare(
    [task],
    models=["linear_probe", "shared.py"],
    engines=["zero_shot", "map", "ekf"],
    shots=[1, 2],
    seeds=[0, 1],
)
table = pd.DataFrame(bc.summarise(comparison))
table[["shots", "model", "engine", "covariance", "accuracy", "nll", "ece", "fit_seconds"]].round(3)

# %%
from bayes_clip.report.arms import detailed, settings_of
from bayes_clip.report.engine_plots import SHOWN, engine_comparison

(setting,) = detailed(settings_of(comparison))
engine_comparison({name: setting.values(name) for name, _ in SHOWN}, list(setting.arms))

# %% [markdown]
# **The answer.** It pays, most of all where labels are few:

# %%
nll = table.set_index(["shots", "engine", "model"])["nll"]
for shots, engine in [(1, "map"), (1, "ekf"), (2, "map"), (2, "ekf")]:
    alone, shared = nll[shots, engine, "linear_probe"], nll[shots, engine, "shared.py"]
    print(f"{shots} shot(s), {engine}: NLL {alone:.3f} for the probe, {shared:.3f} with what is shared")
    assert shared < alone

# %% [markdown]
# ## Use it on new pictures

# %%
fitted = bc.fit(drawn, bc.FitSettings(model="shared.py"))
fitted.posterior.save("posterior")
posterior = bc.load_posterior("posterior")

Image.fromarray(render_shape("star", "red", rng).image).rotate(90).save("new_red_star.png")
Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save("noise.png")

for name in ("new_red_star.png", "noise.png"):
    said = posterior.predict(bc.load_input(name).features)
    chance, best = said.probabilities[0].max(0)
    print(f"{name}: {posterior.class_names[best]}, p = {chance:.2f}, novelty {said.novelty.item():.1f}")

# %% [markdown]
# The same on the command line:
#
#     bayes-clip compare photos/ --models linear_probe,./shared.py --shots 2
#     bayes-clip fit photos/ --models ./shared.py --out posterior/
#     bayes-clip predict posterior/ new_pictures/
#
# A plain Pyro function ``model(inputs, labels=None)`` with Gaussian weights does as well, as in [the
# two-weight model](02_comparing_engines.ipynb). What cannot be filtered is refused, by site and with the
# reason.
#
# Next: [another backbone](06_swapping_the_backbone.ipynb).
