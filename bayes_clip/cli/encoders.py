"""The command that lists encoders, and the prompts that stand ready for them: backbones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from bayes_clip.cli import options, tables

if TYPE_CHECKING:
    from bayes_clip.backbone.catalogue import Offer


def backbones(
    word: Annotated[
        str, typer.Argument(metavar="[WORD]", help="Only those with it in their name or tags.")
    ] = "",
    templates: Annotated[
        bool, typer.Option("--templates", help="List the sets of prompts instead: what --templates takes.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """List the encoders: pocket_clip, and what open_clip offers, with tags of weights and sizes.

    A folder with open_clip_config.json and weights is a backbone too, and so is hf-hub:ORG/MODEL.

    \b
    Examples
      bayes-clip backbones ViT-B
      bayes-clip backbones --templates
    """
    if templates:
        from bayes_clip.backbone.templates import SET_NAMES, template_set

        found = {name: template_set(name) for name in SET_NAMES if word.lower() in name.lower()}
        tables.show(tables.listing({name: _prompts(prompts) for name, prompts in found.items()}))
        return
    from bayes_clip.backbone.catalogue import list_backbones

    tables.show(_offers(list_backbones(word)))


def _offers(offers: Sequence[Offer]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("--backbone", no_wrap=True)
    for heading in ("image", "features", "million parameters"):
        table.add_column(heading, justify="right", min_width=len(heading.split()[-1]))
    table.add_column("--pretrained", overflow="fold", ratio=1)
    for offer in offers:
        count = "" if offer.parameters is None else f"{offer.parameters:.0f}"
        tags = ", ".join(offer.tags) or "a file of your own"
        table.add_row(offer.name, offer.image_size, str(offer.feature_dim), count, tags)
    return table


def _prompts(prompts: tuple[str, ...]) -> str:
    more = f", and {len(prompts) - 1} more" if len(prompts) > 1 else ""
    return f"{prompts[0]}{more}"
