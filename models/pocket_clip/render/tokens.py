"""The stock CLIP tokenizer, one caption at a time and quickly; and the words that captions used."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from open_clip.tokenizer import SimpleTokenizer

CONTEXT_LENGTH = 32
WORD = re.compile(r"[a-z0-9]+")


@cache
def stock_tokenizer() -> SimpleTokenizer:
    """open_clip's stock tokenizer at this context length."""
    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


class CaptionEncoder:
    """Encodes plain captions as open_clip's stock tokenizer does, remembering every piece it met."""

    def __init__(self) -> None:
        self.tokenizer = stock_tokenizer()
        self.pieces: dict[str, list[int]] = {}
        self.words: set[str] = set()

    def encode(self, caption: str) -> list[int]:
        """Token ids without the start and end tokens."""
        ids: list[int] = []
        for piece in self.tokenizer.pat.findall(caption.lower()):
            if piece not in self.pieces:
                self.pieces[piece] = self.tokenizer.encode(piece)
            ids.extend(self.pieces[piece])
        return ids

    def count(self, caption: str) -> int:
        """Number of tokens without the start and end tokens."""
        return len(self.encode(caption))

    def row(self, caption: str) -> np.ndarray:
        """Padded ids (32,) int32 with start and end tokens; its words join the vocabulary."""
        ids = self.encode(caption)
        if len(ids) > CONTEXT_LENGTH - 2:
            raise ValueError(f"caption of {len(ids)} tokens: {caption}")
        self.words.update(WORD.findall(caption.lower()))
        row = np.zeros(CONTEXT_LENGTH, dtype=np.int32)
        full = [self.tokenizer.sot_token_id, *ids, self.tokenizer.eot_token_id]
        row[: len(full)] = full
        return row
