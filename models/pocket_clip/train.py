"""Pretrain pocket_clip on rendered pictures alone: `python -m models.pocket_clip.train`, from the root.

Everything is fixed by the seed; the last step is what is saved, no picture of a real digit is ever read.
`--config`, `--seed` and `--text-from` train another version of it (analysis/backbone_update/README.md).
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
import typer
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from .render.dataset import CAPTIONS_EACH, CHUNK, render_dataset
from .towers import CONFIG_FILE, CompactTokens, build_model, encode_compact_text, save_model, trained_model

SEED = 0
BATCH = 128
LEARNING_RATE, FINAL_SHARE = 1.5e-3, 0.02
WARM_UP_STEPS = 150
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
LARGEST_LOGIT_SCALE = 100.0

log = logging.getLogger("pocket_clip")


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a share of the peak."""
    if step < WARM_UP_STEPS:
        return LEARNING_RATE * (step + 1) / WARM_UP_STEPS
    progress = (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)
    return LEARNING_RATE * (FINAL_SHARE + (1.0 - FINAL_SHARE) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def shake(images: Tensor, generator: torch.Generator) -> Tensor:
    """Light random affine maps of a batch (B, 3, 32, 32): a little turn, scale and shift."""
    count = len(images)
    angle = 0.07 * torch.randn(count, generator=generator)
    scale = 1.0 + 0.06 * torch.randn(count, generator=generator)
    shift = 0.05 * torch.randn(count, 2, generator=generator)
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = scale * angle.cos()
    maps[:, 1, 0] = scale * angle.sin()
    maps[:, 0, 1] = -maps[:, 1, 0]
    maps[:, :, 2] = shift
    grid = nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def make_optimizer(model: nn.Module, tokens: CompactTokens) -> torch.optim.Optimizer:
    """AdamW that decays matrices only."""
    trained = [p for name, p in model.named_parameters() if name != "token_embedding.weight"]
    trained += list(tokens.parameters())
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS)


def train(
    images: np.ndarray, token_rows: np.ndarray, steps: int, model: nn.Module | None = None, seed: int = SEED
) -> tuple[nn.Module, CompactTokens]:
    """Fit both towers to pictures (N, 32, 32, 3) and their token rows (N, 2, 32), from `model` on.

    In float32: bfloat16 saves nothing on a CPU that has to emulate it (ten times slower on the one used).
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = (model or build_model()).to(memory_format=torch.channels_last).train()
    tokens = CompactTokens(np.unique(token_rows), model.token_embedding)
    rows_all = tokens.compact(token_rows)
    optimizer, loss_function = make_optimizer(model, tokens), ClipLoss()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255.0 for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    order, position, started = rng.permutation(len(images)), 0, time.perf_counter()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(steps):
        if position + BATCH > len(order):
            order, position = rng.permutation(len(images)), 0
        chosen = np.sort(order[position : position + BATCH])
        position += BATCH
        pictures = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).float()
        pictures = shake((pictures - mean) / std, generator).contiguous(memory_format=torch.channels_last)
        rows = torch.from_numpy(rows_all[chosen, rng.integers(CAPTIONS_EACH, size=BATCH)].astype(np.int64))
        rows = rows[:, : int(rows.argmax(dim=1).max()) + 1]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        image_features = model.encode_image(pictures, normalize=True)
        text_features = encode_compact_text(model, tokens, rows)
        loss = loss_function(image_features, text_features, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, math.log(LARGEST_LOGIT_SCALE))
        if step % 100 == 0:
            seconds = time.perf_counter() - started
            scale = model.logit_scale.exp().item()
            log.info("step %d of %d, loss %.3f, scale %.1f, %.0f s", step, steps, loss.item(), scale, seconds)
    return model.eval(), tokens


def main(
    thousands: int = typer.Option(90, help="thousands of pictures to render"),
    steps: int = typer.Option(3000, help="training steps of 128 pictures"),
    processes: int = typer.Option(2, help="processes that render"),
    threads: int = typer.Option(1, help="CPU threads that train; two gain little on so small a model"),
    seed: int = typer.Option(SEED, help="of the pictures and of the weights"),
    config: str = typer.Option(str(CONFIG_FILE), help="open_clip config; the weights are written beside it"),
    text_from: str = typer.Option("", help="config of a trained version whose text tower it starts from"),
) -> None:
    """Render, train, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    started = time.perf_counter()
    data = render_dataset(thousands * 1000 // CHUNK, seed, processes)
    log.info(
        "rendered %d pictures, %d words, %.0f s",
        len(data.images),
        len(data.words),
        time.perf_counter() - started,
    )
    torch.manual_seed(seed)
    earlier = trained_model(Path(text_from)) if text_from else None
    model, tokens = train(data.images, data.tokens, steps, build_model(Path(config), earlier), seed)
    save_model(model, tokens, data.words, Path(config).with_suffix(".safetensors"))
    log.info("saved after %.0f s", time.perf_counter() - started)


if __name__ == "__main__":
    typer.run(main)
