"""The commands that encode images once: features, and store, which says what is kept of them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayes_clip.cli import options, tables, values
from bayes_clip.errors import UserError

if TYPE_CHECKING:
    from bayes_clip.data.feature_stream import Written
    from bayes_clip.data.store_contents import Kept

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
KEPT: tuple[tables.Column, ...] = (
    ("backbone", "backbone", None),
    ("fingerprint", "fingerprint", None),
    ("precision", "precision", None),
    ("dimension", "features", 0),
    ("rows", "rows", 0),
    ("size", "size", None),
    ("age", "made", None),
)


def features(
    images: options.InputName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.npz", help="Or FILE.safetensors.")],
    backbone: options.BackboneName = None,
    pretrained: options.Pretrained = None,
    precision: options.Precision = "auto",
    skip_broken: options.SkipBroken = False,
    store: options.Store = None,
    no_store: options.NoStore = False,
    readers: Annotated[
        int | None,
        typer.Option(
            "--readers",
            metavar="N",
            min=1,
            help="Threads that read and decode images.",
            show_default="one per core",
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    workers: options.Workers = None,
    ray_address: options.RayAddress = None,
    device: options.Device = "cpu",
    debug: options.Debug = False,
) -> None:
    """Run the encoder once over images and write their features: a million images in bounded memory.

    What is encoded is kept at once: stopped on the way, the same command goes on from there.

    \b
    Examples
      bayes-clip features photos/ --out photos.npz
      bayes-clip features photos/ --backbone ViT-B-32 --pretrained openai --out photos.npz
      bayes-clip features 'shards-{000..012}.tar' --out shards.npz
      bayes-clip features paths.txt --out listed.safetensors --store /scratch/features
      bayes-clip features paths.txt --out listed.npz --ray-address auto --store /shared/features
    """
    from bayes_clip.data.arrays import check_destination, is_array_file
    from bayes_clip.data.feature_file import load_feature_file, save_feature_file

    check_destination(out)
    if is_array_file(Path(images)) and not Path(images).is_dir():
        encoded = load_feature_file(images)
        save_feature_file(encoded, out)
        tables.notes(encoded.notes)
        tables.line(f"{len(encoded)} rows of {encoded.features.shape[1]} features in {out}")
        return
    from bayes_clip.data.feature_stream import write_features
    from bayes_clip.data.listing import list_pictures

    cluster = values.cluster(workers, ray_address)
    listing = list_pictures(images)
    encoder = values.encoder(backbone, pretrained, device, precision)
    if encoder is None:
        from bayes_clip.backbone.encoder import load_backbone  # open_clip takes seconds to import

        encoder = load_backbone(device=device)
    if cluster is not None:
        from bayes_clip.data.encode_across import encode_across

        encode_across(cluster, encoder, listing, device)
    written = write_features(encoder, listing, out, skip_broken, readers)
    tables.notes([*listing.notes, *written.notes])
    tables.line(f"{written.rows} rows of {encoder.feature_dim} features in {out} ({_said(written)})")


def store(
    place: options.Store = None,
    remove: Annotated[
        bool, typer.Option("--prune", help="Forget features, those that the options below name.")
    ] = False,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Those made so long ago.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", metavar="FINGERPRINT", help="Those of one encoder, by its first digits."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="The oldest, until so much is left: 500M, 20G."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """List the features that are kept of images, encoder by encoder, or prune them.

    \b
    Examples
      bayes-clip store
      bayes-clip store --prune --older-than 90
      bayes-clip store --prune --encoder 1f00 --max-size 2G
    """
    from bayes_clip.data.store_contents import list_kept, prune
    from bayes_clip.data.store_place import VARIABLE, store_folder

    folder = store_folder()
    if folder is None:
        raise UserError(f"{VARIABLE} is empty: no features are kept; name a folder with --store DIR")
    if not remove and not (older_than is None and encoder is None and max_size is None):
        raise UserError("--older-than, --encoder and --max-size choose what --prune forgets; add --prune")
    largest = None if max_size is None else _bytes(max_size)
    if remove:
        tables.line(f"{prune(folder, older_than, encoder, largest)} rows forgotten")
    kept = list_kept(folder)
    if kept:
        tables.show(tables.plain_table(KEPT, [_row(one) for one in kept]))
    total = sum(one.size for one in kept)
    tables.line(f"{sum(one.rows for one in kept)} rows, {_readable(total)} in {folder}")


def _said(written: Written) -> str:
    """How many rows were encoded and kept, and how busy the encoder was."""
    if not written.encoded:
        return "all of them kept from before"
    busy = f"the encoder at work {1 - written.waited / written.seconds:.1%} of the time"
    before = written.rows - written.encoded
    return f"{written.encoded} encoded now, {before} kept from before; {busy}" if before else busy


def _row(kept: Kept) -> dict[str, Any]:
    days = [time.strftime("%Y-%m-%d", time.localtime(when)) for when in (kept.first, kept.last) if when]
    return {
        **{name: getattr(kept, name) for name, *_ in KEPT[:5]},
        "size": _readable(kept.size),
        "age": " to ".join(dict.fromkeys(days)),
    }


def _readable(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise UserError(f"--max-size {text}: not a size; write for example --max-size 500M or --max-size 20G")
    return int(float(match[1]) * UNITS[match[2]])
