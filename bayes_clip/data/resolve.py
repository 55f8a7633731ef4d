"""What the user means by TASK and by INPUT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bayes_clip.backbone.templates import read_templates
from bayes_clip.data.arrays import is_array_file
from bayes_clip.data.builtin import TASKS, builtin_task
from bayes_clip.data.coop_dataset import is_coop_dataset, scan_coop_dataset
from bayes_clip.data.encode import encode_files, picture_files
from bayes_clip.data.feature_file import FeatureFile, load_feature_file, load_feature_task, make_feature_file
from bayes_clip.data.folder_task import folder_task
from bayes_clip.data.image_folder import ImageFolder, scan_folder
from bayes_clip.data.imagenet import scan_variant, variant_of
from bayes_clip.data.labelled_list import is_labelled_list, scan_list
from bayes_clip.data.listing import list_pictures
from bayes_clip.data.task import Task
from bayes_clip.data.torchvision_sets import PREFIX, is_torchvision, named, scan_torchvision
from bayes_clip.errors import UserError, nearest

if TYPE_CHECKING:
    from bayes_clip.backbone.encoder import Backbone

__all__ = ["TASKS", "load_input", "load_task", "with_ood"]


def load_task(
    name_or_path: str | Path,
    backbone: Backbone | None = None,
    templates: str | Sequence[str] | None = None,
    skip_broken: bool = False,
    allow_unknown_classes: bool = False,
    device: str = "cpu",
    ood: str | Path | None = None,
    partial: bool = False,
) -> Task:
    """Load a task: a built-in one (a key of `TASKS`), pictures with their labels, or a feature task.

    Pictures: a folder of class folders, a CoOp-style data set with its split file, ImageNet or a variant of
    it, a CSV file of paths and labels, or ``torchvision:NAME[:ROOT]``.

    Args:
        backbone: encodes pictures; ``pocket_clip`` unless given. A feature task needs none.
        templates: a set's name, a template, a file of templates or a list; unless given CoOp's for its data
            sets, else the backbone's own.
        skip_broken: leave broken pictures out and note it, instead of refusing.
        allow_unknown_classes: go on though ``pocket_clip`` never saw a word of the class names.
        device: where ``pocket_clip`` runs if it has to be loaded here.
        ood: INPUT whose features take the place of the task's ``ood_features``.
        partial: more labels for a posterior: one class is enough, no picture is held out as query, and a
            labelled feature file will do.

    Raises:
        UserError: no such task, or whatever its loader refuses.
    """
    task = _load(name_or_path, backbone, templates, skip_broken, allow_unknown_classes, device, partial)
    return task if ood is None else with_ood(task, load_input(ood, backbone, skip_broken, device))


def load_input(
    path: str | Path, backbone: Backbone | None = None, skip_broken: bool = False, device: str = "cpu"
) -> FeatureFile:
    """Load INPUT: pictures in any of the forms of `list_pictures`, a feature file, or a task's query side.

    Pictures are encoded with `backbone` (``pocket_clip`` unless given, then on `device`).

    Raises:
        UserError: no such path, or whatever its loader refuses.
    """
    path = Path(path)
    if is_array_file(path) and not path.is_dir():
        return load_feature_file(path)
    listing = list_pictures(path)
    backbone = backbone or _pocket(device)
    listed = list(listing)
    sources = [picture.source for picture in listed]
    encoded = encode_files(backbone, sources, skip_broken=skip_broken)
    file = make_feature_file(
        encoded.features,
        paths=[sources[index].name for index in encoded.kept],
        labels=[listed[index].label for index in encoded.kept] if listing.labelled else None,
        class_names=listing.class_names,
        backbone=backbone.fingerprint,
        precision=backbone.precision,
        notes=(*listing.notes, *encoded.notes),
        source=str(path),
    )
    return replace(file, pictures=picture_files(sources, encoded.kept))


def with_ood(task: Task, outside: FeatureFile) -> Task:
    """`task` with the rows of `outside` as its out-of-distribution features.

    Raises:
        UserError: another backbone, or another dimension.
    """
    if task.backbone and outside.backbone and task.backbone != outside.backbone:
        raise UserError(
            f"--ood: its features come from backbone {outside.backbone}, the task's from {task.backbone}; "
            "encode both with the same --backbone"
        )
    dimension = outside.features.shape[1]
    if dimension != task.num_features:
        raise UserError(
            f"--ood: its features have {dimension} columns, the task's {task.num_features}; "
            "encode both with the same --backbone"
        )
    notes = (*task.notes, *outside.notes)
    return replace(
        task,
        ood_features=outside.features,
        ood_norms=outside.norms,
        ood_pictures=outside.pictures,
        notes=notes,
    )


def _load(
    name_or_path: str | Path,
    backbone: Backbone | None,
    templates: str | Sequence[str] | None,
    skip_broken: bool,
    allow_unknown_classes: bool,
    device: str,
    partial: bool,
) -> Task:
    path, text = Path(name_or_path), str(name_or_path)
    is_file = path.is_file() and not is_labelled_list(path)
    if text not in TASKS and not is_torchvision(text):
        if not path.exists():
            raise UserError(_no_such_task(text))
        if is_file:
            return _with_text_encoder(load_feature_task(path, partial), backbone, templates)
    prompts = None if templates is None else read_templates(templates)
    if text in TASKS:
        return builtin_task(text, backbone or _pocket(device), prompts)
    folder, name = scan_task(text, partial)
    encoding = skip_broken, allow_unknown_classes, partial
    return folder_task(folder, backbone or _pocket(device), prompts, *encoding, name=name)


def scan_task(place: str, partial: bool = False) -> tuple[ImageFolder, str | None]:
    """List the pictures of a task, whatever form it has; and its name, where that is not its folder's.

    Raises:
        UserError: what its own listing refuses.
    """
    if is_torchvision(place):
        asked = named(place)
        return scan_torchvision(asked, partial), asked.name
    path = Path(place)
    if is_labelled_list(path):
        return scan_list(path, partial), path.stem
    variant = variant_of(path)
    if variant is not None:
        return scan_variant(path, variant), None
    return scan_coop_dataset(path) if is_coop_dataset(path) else scan_folder(path, partial), None


def _with_text_encoder(task: Task, backbone: Backbone | None, templates: str | Sequence[str] | None) -> Task:
    """A feature task with the encoder that made its features, where one was named: its texts can be adapted.

    Raises:
        UserError: the features are of another backbone, by fingerprint or dimension.
    """
    if backbone is None:
        return task
    if task.backbone not in (None, backbone.fingerprint) or task.num_features != backbone.feature_dim:
        raise UserError(
            f"{task.name}: its features ({task.num_features} columns, backbone {task.backbone or 'unknown'}) "
            f"are not of {backbone.name} ({backbone.feature_dim}, {backbone.fingerprint}); name theirs"
        )
    prompts = None if templates is None else read_templates(templates)
    return replace(task, encoder=backbone, templates=tuple(prompts or ()))


def _no_such_task(name: str) -> str:
    hint = nearest(name, TASKS)
    kinds = (
        f"a built-in task ({', '.join(TASKS)}), a folder of pictures, a CSV of paths and labels, a feature "
        f"file or {PREFIX}NAME"
    )
    return f"{name}: no such task; give {kinds}.{hint}"


def _pocket(device: str) -> Backbone:
    from bayes_clip.backbone.encoder import load_backbone  # open_clip takes seconds to import

    return load_backbone(device=device)
