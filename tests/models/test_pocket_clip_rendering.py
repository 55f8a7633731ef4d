from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bayes_clip.data.rendered_shapes import HELD_OUT_COMBINATIONS
from models.pocket_clip.render.captions import LONGEST
from models.pocket_clip.render.dataset import KINDS, TRAINING_COMBINATIONS, render_captioned, render_chunk
from models.pocket_clip.render.distort import Pose, bend_picture, bend_points, random_pose
from models.pocket_clip.render.glyphs import ALPHABET, lower_resolution, render_glyph
from models.pocket_clip.render.printed import FONTS, draw_printed
from models.pocket_clip.render.skeletons import DIGITS
from models.pocket_clip.render.strokes import SIDE, SKELETONS, draw_strokes
from models.pocket_clip.render.tokens import CONTEXT_LENGTH, CaptionEncoder, stock_tokenizer
from models.pocket_clip.towers import CompactTokens

STRAIGHT = Pose(slant=0.0, turn=0.0, stretch=1.0, warp=((0.0, 1.0, 1.0, 0.0),) * 2)


def test_held_out_pairs_are_never_drawn_for_training() -> None:
    assert len(TRAINING_COMBINATIONS) + len(HELD_OUT_COMBINATIONS) == 144
    assert not set(TRAINING_COMBINATIONS) & set(HELD_OUT_COMBINATIONS)


def test_chunks_are_functions_of_seed_and_number() -> None:
    first, again = render_chunk(3, 0, size=40), render_chunk(3, 0, size=40)
    assert np.array_equal(first.images, again.images) and np.array_equal(first.tokens, again.tokens)
    assert first.words == again.words
    assert not np.array_equal(first.images, render_chunk(4, 0, size=40).images)
    assert not np.array_equal(first.images, render_chunk(3, 1, size=40).images)


def test_captions_fit_the_context_and_some_fill_it() -> None:
    rows = render_chunk(0, 0, size=300).tokens
    lengths = (rows != 0).sum(axis=-1)
    assert rows.shape == (300, 2, CONTEXT_LENGTH)
    assert lengths.max() >= 30 and lengths.min() <= 5
    assert np.all(rows.max(axis=-1) == stock_tokenizer().eot_token_id)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_what_the_stock_tokenizer_makes(kind: str) -> None:
    rng, encoder = np.random.default_rng(0), CaptionEncoder()
    for _ in range(25):
        for caption in render_captioned(kind, encoder.count, rng)[1]:
            assert encoder.count(caption) <= LONGEST
            stock = stock_tokenizer()([caption])[0].numpy()
            assert np.array_equal(encoder.row(caption), stock), caption


@pytest.mark.parametrize("symbol", sorted(SKELETONS))
def test_drawn_glyphs_are_seen_and_touch_the_frame(symbol: str) -> None:
    glyph = np.asarray(draw_strokes(symbol, STRAIGHT, 0.1, np.random.default_rng(0)))
    assert glyph.shape == (SIDE, SIDE)
    assert 0.03 < (glyph > 0).mean() < 0.6
    rows, columns = np.flatnonzero(glyph.any(axis=1)), np.flatnonzero(glyph.any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) >= SIDE - 6


def test_every_digit_has_several_ways_to_be_written_and_every_letter_one() -> None:
    assert all(3 <= len(variants) <= 6 for variants in DIGITS.values())
    assert set(ALPHABET) <= set(SKELETONS)


def test_printed_glyphs_differ_between_symbols() -> None:
    rng = np.random.default_rng(0)
    for symbol in "0123456789ABCabc":
        glyph, family = draw_printed(symbol, STRAIGHT, rng)
        assert np.asarray(glyph).max() > 200 and family in {name for name, _ in FONTS}


def test_pictures_and_points_bend_alike() -> None:
    """A dot bent as a picture lands where the same dot bent as a point lands."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        pose = random_pose(rng)
        flat = Pose(pose.slant, pose.turn, pose.stretch, ((0.0, 1.0, 1.0, 0.0),) * 2)
        point = rng.uniform(0.35, 0.65, (1, 2))
        rows, columns = np.mgrid[0:SIDE, 0:SIDE] + 0.5
        dot = 255 * (np.hypot(columns - point[0, 0] * SIDE, rows - point[0, 1] * SIDE) < 5)
        bent = np.asarray(bend_picture(Image.fromarray(dot.astype(np.uint8)), flat), dtype=float)
        centre = np.array([(bent * columns).sum(), (bent * rows).sum()]) / bent.sum()
        assert np.allclose(centre / SIDE - 0.5, bend_points(point, flat)[0], atol=0.02)


def test_low_resolution_keeps_levels_and_loses_detail() -> None:
    checks = 255.0 * (np.indices((32, 32)).sum(axis=0) % 2)
    assert np.array_equal(lower_resolution(checks, 32), checks)
    assert np.ptp(lower_resolution(checks, 16)) == 0.0
    assert np.allclose(lower_resolution(np.full((32, 32), 255.0), 8), 255.0)


def test_noise_free_white_on_black_glyphs_have_a_black_ground() -> None:
    rng = np.random.default_rng(0)
    glyphs = [render_glyph("0", rng) for _ in range(60)]
    assert {glyph.resolution for glyph in glyphs} == {8, 16, 32}
    assert any(glyph.image.max() == 255 and np.median(glyph.image) < 60 for glyph in glyphs)


def test_compact_tokens_scatter_back_into_the_stock_table() -> None:
    stock = torch.nn.Embedding(50, 4)
    ids = np.array([3, 7, 49])
    tokens = CompactTokens(ids, stock)
    assert np.array_equal(tokens.compact(np.array([[49, 3], [7, 7]])), [[2, 0], [1, 1]])
    with torch.no_grad():
        tokens.table.weight.copy_(torch.arange(12.0).view(3, 4))
    tokens.scatter_into(stock)
    assert torch.equal(stock.weight[torch.from_numpy(ids)], tokens.table.weight)
    assert torch.equal(stock.weight[10], tokens.table.weight.mean(dim=0))
