from __future__ import annotations

from pathlib import Path

import pytest
from coop_sets import WORDNET, WORDNET_NAMES, imagenet, save_shapes

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.coop_dataset import is_coop_dataset, scan_coop_dataset
from bayes_clip.data.coop_layouts import IMAGENET, SHIFTS
from bayes_clip.data.imagenet import imagenet_ids, scan_shift, variant_of
from bayes_clip.data.resolve import load_task
from bayes_clip.errors import UserError

V2, SKETCH, ADVERSARIAL, RENDITION = SHIFTS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return imagenet(tmp_path)


def test_imagenet_is_its_folders_and_the_names_beside_them(root: Path) -> None:
    assert is_coop_dataset(root / "imagenet") and not is_coop_dataset(root / "imagenet-sketch")
    folder = scan_coop_dataset(root / "imagenet")
    assert folder.class_names == WORDNET_NAMES and folder.templates == ("a photo of a {}.",)
    assert folder.support.labels == tuple(label for label in range(5) for _ in range(3))
    assert all(path.parent.parent.name == "val" for path in folder.query.paths)
    assert imagenet_ids(root / "imagenet", IMAGENET) == WORDNET


def test_variants_have_the_labels_of_imagenet(root: Path) -> None:
    for layout in (V2, SKETCH):
        shifted = scan_shift(root / layout.folder, layout, WORDNET)
        assert shifted.classes == (0, 1, 2, 3, 4)
        labels = shifted.pictures.labels or ()
        shapes = [path.name.split("_")[0] for path in shifted.pictures.paths]
        assert [WORDNET_NAMES[label] for label in labels] == shapes
    shifted = scan_shift(root / ADVERSARIAL.folder, ADVERSARIAL, WORDNET)
    assert shifted.classes == (1, 3, 4) and shifted.pictures.labels == (1, 1, 3, 3, 4, 4)


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(UserError, match=r"imagenet-r: no such file or folder"):
        scan_shift(root / "imagenet-rendition", RENDITION, WORDNET)
    save_shapes(root / "imagenet-adversarial/imagenet-a/n99", "star", 1)
    with pytest.raises(UserError, match=r"imagenet-a/n99: no class of the ImageNet"):
        scan_shift(root / "imagenet-adversarial", ADVERSARIAL, WORDNET)
    (root / "imagenet-sketch/images/n01/circle_0.png").unlink()
    (root / "imagenet-sketch/images/n01/circle_1.png").unlink()
    with pytest.raises(UserError, match=r"n01: no pictures in this class folder"):
        scan_shift(root / "imagenet-sketch", SKETCH, WORDNET)
    names = root / "imagenet/classnames.txt"
    names.write_text("n01 circle\nn01 square\n")
    with pytest.raises(UserError, match=r"classnames\.txt line 2"):
        scan_coop_dataset(root / "imagenet")
    names.write_text("n01 circle\n")
    with pytest.raises(UserError, match=r"has no name for the class folder 'n02'"):
        scan_coop_dataset(root / "imagenet")
    save_shapes(root / "imagenet/images/val/n77", "star", 1)
    with pytest.raises(UserError, match=r"'n77' is not in both train/ and val/"):
        scan_coop_dataset(root / "imagenet")


def test_a_variant_is_a_task_of_its_own_classes(root: Path, pocket: Backbone) -> None:
    task = load_task(root / "imagenet-adversarial", pocket, allow_unknown_classes=True)
    names = tuple(WORDNET_NAMES[label] for label in (1, 3, 4))  # n02, n04 and n05, in ImageNet's order
    assert (task.name, task.class_names) == ("imagenet-adversarial", names)
    assert task.support_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert task.query_labels.tolist() == [0, 0, 1, 1, 2, 2] and task.templates == ("a photo of a {}.",)
    assert task.support_pictures is not None and task.query_pictures is not None
    assert all("/images/train/n0" in name for name in task.support_pictures.names or ())
    assert all("/imagenet-a/n0" in name for name in task.query_pictures.names or ())
    for folder in ("imagenetv2", "imagenet-sketch"):
        assert variant_of(root / folder) is not None
        assert load_task(root / folder, pocket, allow_unknown_classes=True).num_classes == 5
    assert variant_of(root / "imagenet") is None


def test_a_variant_without_imagenet_beside_it_is_refused(root: Path) -> None:
    (root / "imagenet").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"ImageNet-A is a test set of ImageNet.*not beside it; put"):
        load_task(root / "imagenet-adversarial")
