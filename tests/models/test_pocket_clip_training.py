from __future__ import annotations

import numpy as np
import pytest
import torch

from models.pocket_clip.render.dataset import render_chunk
from models.pocket_clip.towers import CompactTokens, build_model, encode_compact_text
from models.pocket_clip.train import (
    FINAL_SHARE,
    LEARNING_RATE,
    WARM_UP_STEPS,
    learning_rate,
    make_optimizer,
    shake,
    train,
)


def test_learning_rate_warms_up_and_comes_down() -> None:
    rates = [learning_rate(step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(LEARNING_RATE)
    assert np.all(np.diff(rates[:WARM_UP_STEPS]) > 0) and np.all(np.diff(rates[WARM_UP_STEPS + 1 :]) < 0)
    assert rates[-1] == pytest.approx(FINAL_SHARE * LEARNING_RATE, rel=0.01)


def test_trimmed_text_tower_is_open_clips_own() -> None:
    torch.manual_seed(0)
    token_rows = render_chunk(0, 0, size=30).tokens[:, 0]
    model = build_model().eval()
    tokens = CompactTokens(np.unique(token_rows), model.token_embedding)
    rows = torch.from_numpy(tokens.compact(token_rows).astype(np.int64))
    trimmed = rows[:, : int(rows.argmax(dim=1).max()) + 1]
    assert trimmed.shape[1] < 32
    tokens.scatter_into(model.token_embedding)
    with torch.inference_mode():
        ours = encode_compact_text(model, tokens, trimmed)
        theirs = model.encode_text(torch.from_numpy(token_rows).long(), normalize=True)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_shaking_moves_pictures_a_little() -> None:
    pictures = torch.zeros(8, 3, 32, 32)
    pictures[:, :, 12:20, 12:20] = 1.0
    shaken = shake(pictures, torch.Generator().manual_seed(0))
    assert shaken.shape == pictures.shape
    assert not torch.allclose(shaken, pictures)
    assert bool((shaken.sum(dim=(1, 2, 3)) > 100).all())  # none left the frame


def test_optimizer_decays_matrices_alone_and_skips_the_stock_table() -> None:
    model = build_model()
    tokens = CompactTokens(np.arange(5), model.token_embedding)
    decayed, free = make_optimizer(model, tokens).param_groups
    assert all(p.ndim >= 2 for p in decayed["params"]) and all(p.ndim < 2 for p in free["params"])
    assert not any(p is model.token_embedding.weight for p in decayed["params"])
    assert any(p is tokens.table.weight for p in decayed["params"])


def test_training_repeats_on_one_machine_and_learns() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = render_chunk(0, 0, size=256)
        first, tokens = train(data.images, data.tokens, steps=3)
        again, _ = train(data.images, data.tokens, steps=3)
    finally:
        torch.set_num_threads(threads)
    assert not first.training
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(tokens.table.weight, first.token_embedding.weight[tokens.token_ids])
