"""pocket_clip as open_clip builds it, with a compact token table while it trains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bayes_clip.backbone.naming import register_config

FOLDER = Path(__file__).resolve().parent
CONFIG_FILE = FOLDER / "pocket_clip.json"
WEIGHTS_FILE = FOLDER / "pocket_clip.safetensors"
VOCABULARY_FILE = FOLDER / "vocabulary.json"
TEXT_TOWER = ("token_embedding", "positional_embedding", "transformer", "ln_final")


def build_model(config: Path = CONFIG_FILE, text_from: nn.Module | None = None) -> nn.Module:
    """The open_clip model of a config file, untrained.

    `text_from`: another model whose text tower it starts from, as EVA-CLIP starts from CLIP's, but for the
    projection into the shared space, which may have another width.
    """
    model = open_clip.create_model(register_config(config))
    if text_from is not None:
        for name in TEXT_TOWER:
            part, source = getattr(model, name), getattr(text_from, name)
            if isinstance(part, nn.Module):
                part.load_state_dict(source.state_dict())
            else:
                part.data.copy_(source.data)
    return model


def trained_model(config: Path) -> nn.Module:
    """The open_clip model of a config file with the weights that lie beside it."""
    weights = config.with_suffix(".safetensors")
    return open_clip.create_model(register_config(config), pretrained=str(weights))


class CompactTokens(nn.Module):
    """A token table of the tokens in use alone: the stock one has 49,408 rows, of which captions touch few.

    Rows stand in the order of the stock ids, so that the end token stays the largest, as pooling needs it.
    """

    def __init__(self, token_ids: np.ndarray, stock: nn.Embedding) -> None:
        super().__init__()
        self.token_ids = token_ids  # sorted, (V,)
        self.table = nn.Embedding(len(token_ids), stock.embedding_dim)
        with torch.no_grad():
            self.table.weight.copy_(stock.weight[torch.from_numpy(token_ids).long()])

    def compact(self, rows: np.ndarray) -> np.ndarray:
        """Stock ids to rows of the compact table, any shape."""
        return np.searchsorted(self.token_ids, rows).astype(np.int16)

    def scatter_into(self, stock: nn.Embedding) -> None:
        """Write the trained rows into the stock table; tokens never seen get the mean row."""
        with torch.no_grad():
            stock.weight.copy_(self.table.weight.mean(dim=0).expand_as(stock.weight))
            stock.weight[torch.from_numpy(self.token_ids).long()] = self.table.weight


def encode_compact_text(model: nn.Module, tokens: CompactTokens, rows: Tensor) -> Tensor:
    """Unit text features (B, D) of compact rows (B, L): open_clip's own text tower on a trimmed context."""
    length = rows.shape[1]
    hidden = tokens.table(rows) + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    hidden = model.ln_final(hidden)
    pooled = hidden[torch.arange(len(rows)), rows.argmax(dim=1)]
    return nn.functional.normalize(pooled @ model.text_projection, dim=-1)


def save_model(
    model: nn.Module, tokens: CompactTokens, words: frozenset[str], weights_file: Path = WEIGHTS_FILE
) -> None:
    """Write the weights as float16 safetensors, and beside them the words of the captions as JSON."""
    tokens.scatter_into(model.token_embedding)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    partial = weights_file.with_suffix(".partial")
    save_file(state, partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors writes for the owner's eyes alone
    partial.replace(weights_file)
    (weights_file.parent / VOCABULARY_FILE.name).write_text(json.dumps(sorted(words), indent=0) + "\n")
