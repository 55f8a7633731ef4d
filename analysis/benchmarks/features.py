"""Made-up features with the structure of CLIP's: no data ships with the benchmark.

Pictures and texts live in two narrow cones (all cosines between them are near 0.25), classes differ by small
steps within, and texts point only roughly where their pictures are. With 47 classes and logit scale 100
zero-shot accuracy is about 41 %, a trained head's (16 rows a class) 64 %: somewhat harder than describable
textures with ViT-B/32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

import bayes_clip as bc

LOGIT_SCALE = 100.0
CONE = 0.85  # length of what all pictures share
CLASS_STEP = 0.2  # length of what tells a class
WITHIN = 0.6  # length of what tells pictures of a class from each other
DECAY = 0.35  # the k-th direction of both has a standard deviation in proportion to k to the minus this
CONFUSION = 0.65  # how far, at most, a picture of one class leans to another
TEXT_STEP = 0.3
TEXT_ERROR = 0.5  # of a text against the direction of its class, as a multiple of that direction


def clip_like_task(classes: int, features: int, rows: int, queries: int, seed: int = 0) -> bc.Task:
    """A task with `rows` support and `queries` query rows, as balanced as they can be, in class order."""
    generator = torch.Generator().manual_seed(seed)
    widths = torch.arange(1, features + 1).pow(-DECAY)
    turn = torch.linalg.qr(torch.randn(features, features, generator=generator)).Q

    def directions(count: int) -> Tensor:
        return (torch.randn(count, features, generator=generator) * widths / widths.norm()) @ turn

    shared, gap = torch.linalg.qr(torch.randn(features, 2, generator=generator)).Q.mT
    centres, errors = directions(classes), directions(classes)

    def pictures(labels: Tensor) -> Tensor:
        others = torch.randint(classes, labels.shape, generator=generator)
        lean = CONFUSION * torch.rand(len(labels), 1, generator=generator)
        shown = (1 - lean) * centres[labels] + lean * centres[others]
        return normalize(CONE * shared + CLASS_STEP * shown + WITHIN * directions(len(labels)))

    text = normalize(0.3 * shared + 0.8 * gap + TEXT_STEP * (centres + TEXT_ERROR * errors))
    support, query = _balanced(rows, classes), _balanced(queries, classes)
    return bc.make_task(
        f"clip-like C{classes}", pictures(support), support, pictures(query), query,
        text_features=text, logit_scale=LOGIT_SCALE,
    )  # fmt: skip


def _balanced(rows: int, classes: int) -> Tensor:
    return (torch.arange(rows) % classes).sort().values
