"""Which of torchvision's data sets are tasks, and where each lies on disk.

Folders, splits and class names are torchvision's; pictures per data set are prompted as CoOp prompts them
where it has the data set. Nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bayes_clip.data.coop_layouts import DEFAULT_PROMPT, LAYOUTS

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPTS = {layout.folder: layout.template for layout in LAYOUTS}


def _plain(name: Any) -> str:
    """``_`` as a space; of several names the first."""
    return str(name[0] if isinstance(name, tuple | list) else name).replace("_", " ").strip()


def _numbered(name: Any) -> str:
    """MNIST's "7 - seven"."""
    return _plain(name).rpartition(" - ")[2]


def _joined(name: Any) -> str:
    """EuroSAT's "AnnualCrop"."""
    return "".join(f" {letter}" if letter.isupper() else letter for letter in _plain(name)).strip().lower()


@dataclass(frozen=True)
class Known:
    """One data set of torchvision: its class there, its folder under the root, the arguments of its parts."""

    kind: str  # torchvision.datasets.<kind>
    folder: str  # where torchvision looks under the root; "." for the root itself
    page: str
    train: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] | None = None  # None: one part alone, of which half is held out
    names: str | tuple[str, ...] = "classes"  # the attribute that holds the class names, or these
    word: Callable[[Any], str] = _plain  # how a name is read
    template: str | None = None  # None: the backbone's own
    mirrors: bool = True  # whether a mirror image is still a picture of the class


TRAIN = {"train": True}, {"train": False}
SPLIT = {"split": "train"}, {"split": "test"}
TRAINVAL = {"split": "trainval"}, {"split": "test"}

KNOWN: Mapping[str, Known] = MappingProxyType(
    {
        "cifar10": Known(
            "CIFAR10", "cifar-10-batches-py", "https://www.cs.toronto.edu/~kriz/cifar.html", *TRAIN
        ),
        "cifar100": Known(
            "CIFAR100", "cifar-100-python", "https://www.cs.toronto.edu/~kriz/cifar.html", *TRAIN
        ),
        "mnist": Known(
            "MNIST", "MNIST/raw", "http://yann.lecun.com/exdb/mnist", *TRAIN, word=_numbered, mirrors=False
        ),
        "fashion_mnist": Known(
            "FashionMNIST",
            "FashionMNIST/raw",
            "https://github.com/zalandoresearch/fashion-mnist",
            *TRAIN,
        ),
        "svhn": Known(
            "SVHN", ".", "http://ufldl.stanford.edu/housenumbers", *SPLIT, names=DIGITS, mirrors=False
        ),
        "usps": Known(
            "USPS",
            ".",
            "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps",
            *TRAIN,
            names=DIGITS,
            mirrors=False,
        ),
        "stl10": Known("STL10", "stl10_binary", "https://cs.stanford.edu/~acoates/stl10", *SPLIT),
        "imagenette": Known(
            "Imagenette",
            "imagenette2",
            "https://github.com/fastai/imagenette",
            {"split": "train"},
            {"split": "val"},
        ),
        "oxford_iiit_pet": Known(
            "OxfordIIITPet",
            "oxford-iiit-pet",
            "https://www.robots.ox.ac.uk/~vgg/data/pets",
            *TRAINVAL,
            template=PROMPTS["oxford_pets"],
        ),
        "dtd": Known(
            "DTD", "dtd", "https://www.robots.ox.ac.uk/~vgg/data/dtd", *SPLIT, template=PROMPTS["dtd"]
        ),
        "eurosat": Known(
            "EuroSAT",
            "eurosat/2750",
            "https://github.com/phelber/EuroSAT",
            word=_joined,
            template=PROMPTS["eurosat"],
        ),
        "fgvc_aircraft": Known(
            "FGVCAircraft",
            "fgvc-aircraft-2013b",
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
            *TRAINVAL,
            template=PROMPTS["fgvc_aircraft"],
        ),
        "food101": Known(
            "Food101",
            "food-101",
            "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
            *SPLIT,
            template=PROMPTS["food-101"],
        ),
        "flowers102": Known(
            "Flowers102",
            "flowers-102",
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
            *SPLIT,
            template=PROMPTS["oxford_flowers"],
        ),
        "stanford_cars": Known(
            "StanfordCars",
            "stanford_cars",
            "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (gone since 2023)",
            *SPLIT,
            template=DEFAULT_PROMPT,
        ),
        "caltech101": Known(
            "Caltech101",
            "caltech101/101_ObjectCategories",
            "https://data.caltech.edu/records/mzrjq-6wc02",
            names="categories",
            template=DEFAULT_PROMPT,
        ),
        "caltech256": Known(
            "Caltech256",
            "caltech256/256_ObjectCategories",
            "https://data.caltech.edu/records/nyy15-4j048",
            names="categories",
            word=lambda name: _plain(name).partition(".")[2].replace("-101", "").replace("-", " "),
            template=DEFAULT_PROMPT,
        ),
        "sun397": Known(
            "SUN397",
            "SUN397",
            "https://vision.princeton.edu/projects/2010/SUN (gone since 2023)",
            template=DEFAULT_PROMPT,
        ),
        "rendered_sst2": Known(
            "RenderedSST2",
            "rendered-sst2",
            "https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md",
            *SPLIT,
            mirrors=False,
        ),
    }
)
