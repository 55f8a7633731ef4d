"""`bayes-clip features` on many rendered pictures: killed, resumed, compared; its memory and its time.

    python analysis/features_of_many.py                                    20,000 pictures, pocket_clip
    python analysis/features_of_many.py --images 1000 --encoder ViT-B-32   random weights, which cost the same

Renders shapes and textures, encodes them without a stop, then anew in an empty store with the process killed
(SIGKILL) at random moments, and compares the two files byte for byte. Share: what part of the seconds from
the first picture to the last the encoder was at work and not waiting for pictures, as the command says.
With fewer cores than threads, the threads that read pictures take time from the encoder while it is at
work; so the table also says how long the encoder takes alone, with its pictures ready and nothing beside it,
as a share of those seconds. Writes analysis/results/features_of_many_ENCODER.csv and .md.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from study_tools import RESULTS, hardware, markdown

import bayes_clip as bc
from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.encode_stream import batch_size
from bayes_clip.data.rendered_shapes import COLOURS, SHAPES, render_shape
from bayes_clip.data.rendered_textures import TEXTURES, render_texture
from bayes_clip.data.store_contents import list_kept

IMAGES, KILLS, BATCHES_ALONE = 20_000, 3, 10
POCKET = "pocket_clip"
SIDE = 256  # pixels of pictures for larger encoders, as JPEG; pocket_clip gets them as rendered, as PNG


def render(folder: Path, count: int, large: bool) -> None:
    """`count` pictures in one folder for each shape and texture, a function of their number alone."""
    kinds = [*SHAPES, *TEXTURES]
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        kind = kinds[number % len(kinds)]
        drawn = (
            render_shape(kind, str(random.choice(list(COLOURS))), random)
            if kind in SHAPES
            else render_texture(kind, random)
        )
        picture = Image.fromarray(np.asarray(drawn.image, dtype=np.uint8))
        if large:
            picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / kind / f"{number:06d}.jpg")
        else:
            picture.save(folder / kind / f"{number:06d}.png")


def command(folder: Path, out: Path, store: Path, encoder: list[str]) -> list[str]:
    """The command line that is measured."""
    told = ["features", str(folder), "--out", str(out), "--store", str(store), *encoder]
    return [sys.executable, "-m", "bayes_clip.cli", *told]


def run(told: list[str], killed_after: float | None = None) -> dict[str, float]:
    """Run a command, to its end or until it is killed: seconds, peak memory, and what it said of itself."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(told, stdout=said)
        if killed_after is not None:
            time.sleep(killed_after)
            os.kill(
                process.pid, signal.SIGKILL
            )  # process.kill would reap one that has ended, and wait4 with it
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if killed_after is None and process.returncode:
        raise SystemExit(f"{' '.join(told)}: ended with {process.returncode}")
    found = {
        "seconds": time.perf_counter() - start,
        "peak_mb": _megabytes(usage),
        "killed": killed_after or 0,
    }
    found["cpu_seconds"] = usage.ru_utime + usage.ru_stime
    if share := re.search(r"at work ([\d.]+)%", text):
        found["share"] = float(share[1]) / 100
    now = re.search(r"(\d+) encoded now", text) or re.search(r"(\d+) rows", text)
    return {**found, "encoded": int(now[1])} if now else found


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def seconds_alone(backbone: Backbone) -> float:
    """Seconds a picture, of the encoder with pixels ready and nothing beside it."""
    pixels = torch.randn(batch_size(backbone), 3, *backbone.image_size)
    backbone.encode_pixels(pixels, len(pixels))
    start = time.perf_counter()
    for _ in range(BATCHES_ALONE):
        backbone.encode_pixels(pixels, len(pixels))
    return (time.perf_counter() - start) / (BATCHES_ALONE * len(pixels))


def study(
    place: Path, count: int, encoder: list[str], kills: int = KILLS, seed: int = 0, large: bool = False
) -> pd.DataFrame:
    """One row for every process: an uninterrupted one, killed ones, and the one that ends their work."""
    folder = place / "pictures"
    render(folder, count, large)
    whole = run(command(folder, place / "whole.npz", place / "first", encoder))
    rows = [{"run": "uninterrupted", "kept": count, **whole}]
    random = np.random.default_rng(seed)
    told = command(folder, place / "resumed.npz", place / "second", encoder)
    for number in range(kills):
        moment = whole["seconds"] * random.uniform(0.2, 0.8)
        found = run(told, moment)
        rows.append({"run": f"killed {number + 1}", "kept": _kept(place / "second"), **found})
        if (place / "resumed.npz").exists():
            break  # it was done before its moment came
    rows.append({"run": "resumed", "kept": count, **run(told)})
    table = pd.DataFrame(rows)
    same = (place / "whole.npz").read_bytes() == (place / "resumed.npz").read_bytes()
    left = [entry.name for entry in place.iterdir() if entry.name.startswith(".")]
    return table.assign(images=count, same_bytes=same, left_behind=len(left))


def _kept(store: Path) -> int:
    return sum(one.rows for one in list_kept(store))


def main() -> None:
    """Measure one encoder and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--encoder", default=POCKET, help="or an open_clip architecture, with random weights")
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="features_of_many_"))
    try:
        told = _told(asked.encoder, place)
        alone = seconds_alone(bc.load_backbone(*told[1::2]) if told else bc.load_backbone())
        table = study(place, asked.images, told, large=bool(told)).assign(encoder=asked.encoder)
    finally:
        shutil.rmtree(place)
    table["alone_seconds"] = alone * table["encoded"]
    name = f"features_of_many_{asked.encoder.replace('-', '_').lower()}"
    table.round(4).to_csv(RESULTS / f"{name}.csv", index=False)
    (RESULTS / f"{name}.md").write_text(page(table))


def _told(encoder: str, place: Path) -> list[str]:
    """Options of an encoder; of a larger one the weights are random, drawn once."""
    if encoder == POCKET:
        return []
    import open_clip

    torch.manual_seed(0)
    weights = place / "random.pt"
    torch.save(open_clip.create_model(encoder).state_dict(), weights)
    return ["--backbone", encoder, "--pretrained", str(weights)]


def page(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    header = ("run", "seconds", "encoded", "kept", "peak MB", "encoder at work", "encoder alone, seconds")
    rows = [
        (
            row["run"],
            f"{row['seconds']:.0f}",
            "" if np.isnan(row["encoded"]) else f"{row['encoded']:.0f}",
            row["kept"],
            f"{row['peak_mb']:.0f}",
            "" if np.isnan(row["share"]) else f"{row['share']:.1%}",
            "" if np.isnan(row["alone_seconds"]) else f"{row['alone_seconds']:.0f}",
        )
        for _, row in table.iterrows()
    ]
    first = table.iloc[0]
    verdict = "is the same byte for byte" if first["same_bytes"] else "DIFFERS"
    return (
        f"# Features of {first['images']:,} rendered pictures, {first['encoder']}\n\n"
        f"{markdown(header, rows)}\n\n"
        f"The file of the resumed run {verdict} as that of the uninterrupted one; files left behind: "
        f"{first['left_behind']}. Seconds are of the whole process, loading included; *at work* is the share "
        "of the time from the first picture to the last; *alone* is what the encoder takes for as many "
        "pictures with pixels ready and nothing beside it. Peak memory counts the process that starts the "
        "command too, where that is larger (Linux hands it on): an upper bound. Written by "
        f"analysis/features_of_many.py on {hardware()}.\n"
    )


if __name__ == "__main__":
    main()
