"""Standard normal noise for draws of logits, fixed for each row by what the row is.

A row's draws must not depend on the rows beside it nor on how rows are cut into chunks; making (S, N, C)
fresh numbers takes longer than all that is done with them. So every draw has one long line of noise, and a
row reads a window of it that starts where a hash of the row says.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

STARTS = 1024  # places where a window may start: rows in different places have different noise
SHADES = 64  # of a unit-length row's coordinates: coarse, so that rounding does not move the row


def keys_of(rows: Tensor) -> Tensor:
    """Where the windows of rows (N, F) start, (N,) in [0, STARTS): the same for the same row, anywhere.

    A hash of the coordinates, in steps of 1/64 of the row's length: float32 and float64, or a row and its
    multiple, meet in the same noise but for rare ties.
    """
    lengths = rows.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    # shifted, so that common values (0, 1, powers of two) lie inside a step and not on its edge
    shades = (rows / lengths * SHADES + 0.382).floor().long()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(1, 2**31, (rows.shape[1],), generator=generator).to(rows.device)
    mixed = (shades * weights).sum(-1)
    return ((mixed ^ (mixed >> 15)) * 0x9E3779B1 >> 7) % STARTS


def antithetic(keys: Tensor, width: int, draws: int, at_once: int, like: Tensor) -> Iterator[Tensor]:
    """Noise for `draws` draws of n rows with `keys` (n,), in blocks (s, n, width) of s <= `at_once` draws.

    Every draw comes with its negative, in the next block. One draw of one row is standard normal; its draws
    are independent but for the sign. Two rows share noise only where their windows overlap, and then between
    different classes, unless their keys are equal (one pair in 1024). Blocks are made in float64 for every
    dtype, and are overwritten by the next: use each before asking for another.
    """
    generator = torch.Generator().manual_seed(0)
    length, done = STARTS + width, 0
    while done < draws:
        pairs = min(at_once, (draws - done + 1) // 2)
        lines = [torch.randn(length, generator=generator, dtype=torch.float64) for _ in range(pairs)]
        noise = like.new_empty(pairs, len(keys), width)
        for line, into in zip(lines, noise, strict=True):
            windows = line.to(like).as_strided((STARTS, width), (1, 1))
            torch.index_select(windows, 0, keys, out=into)
        yield noise
        rest = min(pairs, draws - done - pairs)
        if rest:
            yield noise[:rest].neg_()
        done += pairs + rest
