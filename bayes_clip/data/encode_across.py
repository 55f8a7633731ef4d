"""Pictures encoded by many workers into the one store of features, from which one process then reads them.

A stretch of the pictures is a piece of work. What a worker computes is in the store at once, so nothing
comes back, a worker that is killed loses a block at most, and what is stopped goes on. Pictures that cannot
be read are left to whoever reads the store: it names them as it does alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from bayes_clip.cluster import Cluster, spread
from bayes_clip.data.encode_stream import encode_stream
from bayes_clip.data.sources import Listed, Listing
from bayes_clip.data.store_place import store_folder, use_store
from bayes_clip.errors import UserError
from bayes_clip.progress import track

if TYPE_CHECKING:  # open_clip takes seconds to import
    from bayes_clip.backbone.encoder import Backbone

LONGEST, SHORTEST = 512, 32  # pictures of a stretch: tens of seconds for a large encoder on a core
PARTS = 4  # stretches for each worker, at least, where there are enough pictures


def encode_across(cluster: Cluster, backbone: Backbone, listing: Listing, device: str = "cpu") -> None:
    """Have the workers of `cluster` encode every picture of `listing` into the store.

    On a cluster of several machines the store and the pictures lie on a disk that all of them see.

    Raises:
        UserError: no features are kept, or what `spread` refuses.
    """
    folder = store_folder()
    if folder is None:
        raise UserError("--workers: the workers meet in the store of features; name one with --store DIR")
    even = -(-listing.count // (PARTS * (cluster.workers or 1)))
    size = min(LONGEST, max(SHORTEST, even))
    stretches = _stretches(listing, size)
    shared = [(backbone, folder.absolute())]
    work = spread(cluster, _encoded, shared, ((0, stretch) for stretch in stretches), device)
    with closing(work):
        for _, outcome in track(work, "encoding pictures", -(-listing.count // size)):
            if isinstance(outcome, UserError):
                raise outcome


def _encoded(shared: tuple[Backbone, Path], pictures: Sequence[Listed]) -> None:
    backbone, folder = shared
    use_store(folder)
    for _ in encode_stream(backbone, pictures, len(pictures), skip_broken=True):
        pass


def _stretches(pictures: Iterable[Listed], size: int) -> Iterator[list[Listed]]:
    rest = iter(pictures)
    while stretch := list(islice(rest, size)):
        yield stretch
