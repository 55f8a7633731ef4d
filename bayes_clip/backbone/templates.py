"""Prompt templates: sentences with ``{}`` where the class name goes, built in or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bayes_clip.errors import UserError, nearest

PLACEHOLDER = "{}"
DEFAULT_TEMPLATES = ("a photo of a {}.",)
ENSEMBLE, LARGE_ENSEMBLE = "ensemble", "ensemble_80"

# CoOp's single prompt of each of its data sets, by their folders (Zhou et al. 2022, zero-shot trainer).
COOP_TEMPLATES: dict[str, str] = {
    "imagenet": "a photo of a {}.",
    "caltech-101": "a photo of a {}.",
    "oxford_pets": "a photo of a {}, a type of pet.",
    "stanford_cars": "a photo of a {}.",
    "oxford_flowers": "a photo of a {}, a type of flower.",
    "food-101": "a photo of {}, a type of food.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "sun397": "a photo of a {}.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "ucf101": "a photo of a person doing {}.",
}
SET_NAMES: tuple[str, ...] = ("photo", ENSEMBLE, LARGE_ENSEMBLE, *COOP_TEMPLATES)


def template_set(name: str) -> tuple[str, ...]:
    """The templates of a built-in set, one of `SET_NAMES`.

    ``ensemble``: the seven that CLIP's authors found to work best together; ``ensemble_80``: all eighty of
    theirs (openai/CLIP, Prompt_Engineering_for_ImageNet), both as open_clip ships them.
    """
    if name in COOP_TEMPLATES:
        return (COOP_TEMPLATES[name],)
    if name not in (ENSEMBLE, LARGE_ENSEMBLE):
        return DEFAULT_TEMPLATES
    import open_clip  # takes seconds

    shipped = {
        ENSEMBLE: open_clip.SIMPLE_IMAGENET_TEMPLATES,
        LARGE_ENSEMBLE: open_clip.OPENAI_IMAGENET_TEMPLATES,
    }
    return tuple(template(PLACEHOLDER) for template in shipped[name])


def read_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return templates from the name of a set, one template, a text file with one per line, or a list.

    Raises:
        UserError: no such set or file, nothing in it, or a template without ``{}``.
    """
    if not isinstance(templates, str):
        found, where = tuple(templates), "templates"
    elif templates in SET_NAMES:
        return template_set(templates)
    elif PLACEHOLDER in templates:
        return (templates,)
    else:
        found, where = _read_file(templates), templates
    if not found:
        raise UserError(
            f"{where}: no templates in it; write one per line, with {PLACEHOLDER} for the class name"
        )
    for number, template in enumerate(found, start=1):
        if PLACEHOLDER not in template:
            raise UserError(
                f"{where} {number} ('{template}') has no {PLACEHOLDER} for the class name; add it"
            )
    return found


def fill(templates: Sequence[str], class_name: str) -> list[str]:
    """The prompts of one class."""
    return [template.replace(PLACEHOLDER, class_name) for template in templates]


def _read_file(name: str) -> tuple[str, ...]:
    path = Path(name)
    if not path.is_file():
        raise UserError(
            f"--templates {name}: neither a set ({', '.join(SET_NAMES)}) nor a file, and without "
            f"{PLACEHOLDER} no template either.{nearest(name, SET_NAMES)}"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8 text") from None
    return tuple(line.strip() for line in lines if line.strip())
