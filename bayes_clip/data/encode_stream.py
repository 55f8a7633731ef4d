"""A stream of pictures encoded block by block: read by threads, looked up, the rest encoded in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayes_clip.data.feature_store import FeatureStore, Made, digest, opened_store
from bayes_clip.data.images import decode_image, thumbnail
from bayes_clip.data.sources import Listed, Stamp
from bayes_clip.data.store_place import store_folder
from bayes_clip.errors import UserError

if TYPE_CHECKING:  # open_clip takes seconds to import; feature tasks do without
    from bayes_clip.backbone.encoder import Backbone

PIXELS_AT_ONCE = 2**16  # of a batch on a CPU, from which on larger batches are hardly faster
LEAST_BATCH, LARGEST_BATCH = 8, 64
BATCHES_ON_GPU = 32  # between two copies to the host
FOUND_AT_ONCE = 4096  # rows from the store that wait for rows still to be encoded


@dataclass(frozen=True)
class Block:
    """Consecutive pictures of a stream, encoded: n rows, in order, without the broken ones."""

    features: Tensor  # (n, D) float32, not normalised
    listed: tuple[Listed, ...]  # length n
    places: tuple[int, ...]  # length n: counted from the first picture of the stream, broken ones too
    thumbnails: tuple[Tensor, ...]  # length n where asked for, else empty
    broken: tuple[UserError, ...]
    encoded: int  # how many of the rows were computed now; the others were kept
    seconds: float  # spent on this block
    waited: float  # of them, seconds in which the encoder had no pictures


@dataclass(frozen=True)
class _Read:
    """What a thread has made of one picture."""

    listed: Listed
    error: UserError | None = None
    digest: bytes | None = None
    stamp: Stamp | None = None  # to be kept beside the digest
    row: Tensor | None = None  # (D,) from the store
    pixels: Tensor | None = None  # (3, h, w) where there was no row
    thumbnail: Tensor | None = None


def encode_stream(
    backbone: Backbone,
    listing: Iterable[Listed],
    total: int | None = None,
    skip_broken: bool = False,
    with_thumbnails: bool = False,
    description: str = "encoding pictures",
    workers: int | None = None,
) -> Iterator[Block]:
    """Encode pictures, in order, a block at a time; no more than a block is in memory.

    Every batch has the same number of pictures, the last is filled up: matrix products of another size round
    otherwise, so this is what makes features the same bit for bit whether they were kept or not, on one
    machine with one version of torch. Rows are kept on disk as soon as their block is done.

    Raises:
        UserError: a picture that cannot be read, unless `skip_broken`; or a store that cannot be used.
    """
    from bayes_clip.backbone.prefetch import ahead, workers_for
    from bayes_clip.progress import track

    workers = workers or workers_for(backbone.device)
    with opened_store(store_folder(), backbone) as store:

        def read(listed: Listed) -> _Read:
            return _read(backbone, listed, store, with_thumbnails)

        with ahead(read, listing, workers) as pictures:
            shown = iter(track(pictures, description, total))
            first = 0
            while True:
                block, count = _next_block(backbone, shown, first, skip_broken, store)
                if not count:
                    return
                first += count
                yield block


def batch_size(backbone: Backbone) -> int:
    """How many pictures every batch has: on a CPU few large ones, for one costs as much as a batch."""
    if torch.device(backbone.device).type != "cpu":
        return LARGEST_BATCH
    height, width = backbone.image_size
    return max(LEAST_BATCH, min(PIXELS_AT_ONCE // (height * width), LARGEST_BATCH))


def _read(backbone: Backbone, listed: Listed, store: FeatureStore | None, with_thumbnails: bool) -> _Read:
    source, content, known, row = listed.source, None, None, None
    stamp = None if store is None else source.stamp()
    if store is not None and stamp is not None:
        known = store.digest_of(stamp)
        row = None if known is None else store.find(known)
        stamp = stamp if row is None else None  # else it is kept already
    try:
        if row is None or with_thumbnails:
            content = source.read()
    except UserError as error:
        return _Read(listed, error)
    if store is not None and row is None and content is not None:
        known = digest(content)
        row = store.find(known)
    kept = None if row is None else torch.from_numpy(row.copy())
    done = _Read(listed, digest=known, stamp=stamp, row=kept)
    if content is None or (kept is not None and not with_thumbnails):
        return done
    try:
        image = decode_image(content, source.where)
    except UserError as error:
        return _Read(listed, error)
    pixels = backbone.prepare(image) if kept is None else None
    return replace(done, pixels=pixels, thumbnail=thumbnail(image) if with_thumbnails else None)


def _next_block(
    backbone: Backbone,
    pictures: Iterator[_Read],
    first: int,
    skip_broken: bool,
    store: FeatureStore | None,
) -> tuple[Block, int]:
    """The next rows and how many pictures they took; none where there are no more."""
    start, waited, batch = perf_counter(), 0.0, batch_size(backbone)
    most = batch * (1 if torch.device(backbone.device).type == "cpu" else BATCHES_ON_GPU)
    taken: list[_Read] = []

    def to_encode() -> Iterator[Tensor]:
        nonlocal waited
        count = 0
        while count < most and len(taken) < FOUND_AT_ONCE + most:
            asked = perf_counter()
            picture = next(pictures, None)
            waited += perf_counter() - asked
            if picture is None:
                break
            if picture.error is not None and not skip_broken:
                raise picture.error
            taken.append(replace(picture, pixels=None))  # pixels of a whole block would fill the memory
            if picture.pixels is not None:
                count += 1
                yield picture.pixels
        shape = (3, *backbone.image_size)
        yield from (torch.zeros(shape) for _ in range(-count % batch))

    computed = backbone.encode_pixels(to_encode(), batch_size=batch)
    good = [(first + place, picture) for place, picture in enumerate(taken) if picture.error is None]
    rows = iter(computed)
    features = [next(rows) if picture.row is None else picture.row for _, picture in good]
    if store is not None:
        _keep(store, [picture for _, picture in good], features)
    block = Block(
        features=torch.stack(features) if features else torch.empty(0, backbone.feature_dim),
        listed=tuple(picture.listed for _, picture in good),
        places=tuple(place for place, _ in good),
        thumbnails=tuple(picture.thumbnail for _, picture in good if picture.thumbnail is not None),
        broken=tuple(picture.error for picture in taken if picture.error is not None),
        encoded=sum(picture.row is None for _, picture in good),
        seconds=perf_counter() - start,
        waited=waited,
    )
    return block, len(taken)


def _keep(store: FeatureStore, pictures: Sequence[_Read], features: Sequence[Tensor]) -> None:
    """Keep what was computed now, and where files lie whose content was known."""
    both = [(picture, row) for picture, row in zip(pictures, features, strict=True) if picture.digest]
    rows = [Made(picture.digest, row.numpy()) for picture, row in both if picture.row is None]  # type: ignore[arg-type]
    files = [(picture.stamp, picture.digest) for picture, _ in both if picture.stamp is not None]
    if rows or files:
        store.add(rows, files)  # type: ignore[arg-type]
