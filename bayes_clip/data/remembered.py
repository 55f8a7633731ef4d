"""Features of picture files, encoded once and kept beside what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bayes_clip.data.arrays import read_arrays, write_arrays
from bayes_clip.data.encode import Encoded, encode_files
from bayes_clip.errors import UserError

if TYPE_CHECKING:  # open_clip takes seconds to import; feature tasks do without
    from bayes_clip.backbone.encoder import Backbone

ENTRIES = ("features", "paths", "changed")


@dataclass(frozen=True)
class Remembered:
    """`encode_files` with a memory: a feature file in `folder` for each data set, backbone and precision.

    What is in the file is not encoded again; a picture is known by its path and by when it was last changed.
    Features come out the same bit for bit whether they were there already or not.
    """

    folder: Path
    name: str

    def __call__(
        self,
        backbone: Backbone,
        paths: Sequence[Path],
        *,
        skip_broken: bool = False,
        with_thumbnails: bool = False,
        description: str = "encoding pictures",
    ) -> Encoded:
        """As `encode_files`; thumbnails are not kept, so there are none.

        Raises:
            UserError: as `encode_files`, or a place that cannot be written.
        """
        file = self.folder / f"{self.name}-{backbone.fingerprint}-{backbone.precision}.npz"
        known = _read(file)
        asked = [(str(path.absolute()), _changed(path)) for path in paths]
        new = [place for place, key in enumerate(asked) if key not in known]
        notes: tuple[str, ...] = ()
        if new:
            encoded = encode_files(
                backbone,
                [paths[place] for place in new],
                skip_broken=skip_broken,
                description=f"{self.name}: {description}",
            )
            notes = encoded.notes
            rows = encoded.features.numpy()
            known |= {asked[new[row]]: rows[number] for number, row in enumerate(encoded.kept)}
            _write(file, known, backbone)
        kept = tuple(place for place, key in enumerate(asked) if key in known)
        if not kept:
            raise UserError(f"none of {len(paths)} pictures can be read; the first: {paths[0]}")
        features = torch.from_numpy(np.stack([known[asked[place]] for place in kept]))
        return Encoded(features, kept, None, notes)


def _changed(path: Path) -> int:
    """When the file was last changed, in nanoseconds; 0 where there is none (encoding names it)."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _read(file: Path) -> dict[tuple[str, int], np.ndarray]:
    if not file.exists():
        return {}
    found, _ = read_arrays(file, ENTRIES)
    if found.keys() != {*ENTRIES}:
        raise UserError(f"{file}: not features kept by this command; remove it, and they are made again")
    keys = zip(found["paths"].tolist(), found["changed"].tolist(), strict=True)
    return dict(zip(keys, found["features"], strict=True))


def _write(file: Path, known: dict[tuple[str, int], np.ndarray], backbone: Backbone) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(
        file,
        {
            "features": torch.from_numpy(np.stack(list(known.values()))),
            "changed": torch.tensor([changed for _, changed in known]),
        },
        {
            "paths": [path for path, _ in known],
            "backbone": backbone.fingerprint,
            "precision": backbone.precision,
        },
    )
