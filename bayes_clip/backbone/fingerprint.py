"""A short name for exactly these weights and this preprocessing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LENGTH = 16  # hexadecimal digits


def fingerprint(model_name: str, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of a SHA-256 over the model's name, weights and preprocessing.

    Weights enter by name, type, shape and bytes in the order of their names, so that features are told
    apart exactly where their encoders differ.
    """
    digest = hashlib.sha256(model_name.encode())
    digest.update(json.dumps(dict(preprocessing), sort_keys=True, default=str).encode())
    for key in sorted(weights):
        tensor = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:LENGTH]
