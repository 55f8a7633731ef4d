"""Prompt templates: sentences with ``{}`` where the class name goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bayes_clip.errors import UserError, nearest

PLACEHOLDER = "{}"
TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}.",),
    # the seven that CLIP's authors found to work best together (openai/CLIP, Prompt_Engineering_for_ImageNet)
    "ensemble": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
}
DEFAULT_TEMPLATES = TEMPLATE_SETS["photo"]


def read_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return templates from the name of a set, one template, a text file with one per line, or a list.

    Raises:
        UserError: no such set or file, nothing in it, or a template without ``{}``.
    """
    if not isinstance(templates, str):
        found, where = tuple(templates), "templates"
    elif templates in TEMPLATE_SETS:
        return TEMPLATE_SETS[templates]
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
            f"--templates {name}: neither a set ({', '.join(TEMPLATE_SETS)}) nor a file, and without "
            f"{PLACEHOLDER} no template either.{nearest(name, TEMPLATE_SETS)}"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8 text") from None
    return tuple(line.strip() for line in lines if line.strip())
