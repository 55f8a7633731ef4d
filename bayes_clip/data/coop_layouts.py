"""Where the data sets of CoOp's protocol lie under one root, how they are prompted, and where to get them.

Folders, split files and templates as in CoOp (Zhou et al. 2022; its DATASETS.md and zero-shot trainer).
"""

from __future__ import annotations

from dataclasses import dataclass

from bayes_clip.backbone.templates import COOP_TEMPLATES, DEFAULT_TEMPLATES

SPLIT_FILES = "split_zhou_*.json"
MIRROR = "https://huggingface.co/datasets/zhengli97/prompt_learning_dataset"  # pictures and split files
(DEFAULT_PROMPT,) = DEFAULT_TEMPLATES


@dataclass(frozen=True)
class Layout:
    """One data set: its folder under the root, the folder of its pictures in there, its prompt."""

    folder: str
    title: str
    images: str  # under `folder`; "." where the split file's paths begin there
    split: str  # of split_zhou_<split>.json; empty where the folder needs none
    page: str  # the official one
    mirrored: bool = True  # whether MIRROR has it, with its split file

    @property
    def split_file(self) -> str:
        """Name of its split file."""
        return f"split_zhou_{self.split}.json"

    @property
    def template(self) -> str:
        """Its single prompt."""
        return COOP_TEMPLATES.get(self.folder, DEFAULT_PROMPT)


IMAGENET = Layout(
    folder="imagenet",
    title="ImageNet",
    images="images",
    split="",
    page="https://image-net.org (classnames.txt: CoOp's DATASETS.md)",
    mirrored=False,
)
AIRCRAFT = Layout(
    folder="fgvc_aircraft",
    title="FGVCAircraft",
    images="images",
    split="",
    page="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
)

# The eleven of CoOp, in its order.
LAYOUTS: tuple[Layout, ...] = (
    IMAGENET,
    Layout(
        folder="caltech-101",
        title="Caltech101",
        images="101_ObjectCategories",
        split="Caltech101",
        page="https://data.caltech.edu/records/mzrjq-6wc02",
    ),
    Layout(
        folder="oxford_pets",
        title="OxfordPets",
        images="images",
        split="OxfordPets",
        page="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ),
    Layout(
        folder="stanford_cars",
        title="StanfordCars",
        images=".",
        split="StanfordCars",
        page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (gone since 2023)",
    ),
    Layout(
        folder="oxford_flowers",
        title="Flowers102",
        images="jpg",
        split="OxfordFlowers",
        page="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    ),
    Layout(
        folder="food-101",
        title="Food101",
        images="images",
        split="Food101",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    ),
    AIRCRAFT,
    Layout(
        folder="sun397",
        title="SUN397",
        images="SUN397",
        split="SUN397",
        page="https://vision.princeton.edu/projects/2010/SUN/ (gone since 2023)",
    ),
    Layout(
        folder="dtd",
        title="DTD",
        images="images",
        split="DescribableTextures",
        page="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    ),
    Layout(
        folder="eurosat",
        title="EuroSAT",
        images="2750",
        split="EuroSAT",
        page="https://github.com/phelber/EuroSAT",
    ),
    Layout(
        folder="ucf101",
        title="UCF101",
        images="UCF-101-midframes",
        split="UCF101",
        page="https://www.crcv.ucf.edu/data/UCF101.php",
    ),
)

# Tests of a change of distribution for what was learned on ImageNet. Folders of classes are called by their
# WordNet ids, but those of V2 by their numbers.
SHIFTS: tuple[Layout, ...] = (
    Layout(
        folder="imagenetv2",
        title="ImageNetV2",
        images="imagenetv2-matched-frequency-format-val",
        split="",
        page="https://github.com/modestyachts/ImageNetV2 (matched frequency)",
        mirrored=False,
    ),
    Layout(
        folder="imagenet-sketch",
        title="ImageNet-Sketch",
        images="images",
        split="",
        page="https://github.com/HaohanWang/ImageNet-Sketch",
        mirrored=False,
    ),
    Layout(
        folder="imagenet-adversarial",
        title="ImageNet-A",
        images="imagenet-a",
        split="",
        page="https://github.com/hendrycks/natural-adv-examples",
        mirrored=False,
    ),
    Layout(
        folder="imagenet-rendition",
        title="ImageNet-R",
        images="imagenet-r",
        split="",
        page="https://github.com/hendrycks/imagenet-r",
        mirrored=False,
    ),
)
