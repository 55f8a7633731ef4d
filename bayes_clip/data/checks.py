"""Refusals shared by every loader: each names the source, the array and the row, and says the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayes_clip.errors import UserError

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def as_tensor(array: Any, where: str) -> Tensor:
    """Return `array` (tensor, numpy array, nested sequence of numbers) as a tensor on the CPU."""
    if isinstance(array, Tensor):
        return array.detach().cpu()
    try:
        values = np.asarray(array)
    except ValueError:
        raise UserError(f"{where} has rows of different lengths; give every row the same") from None
    if values.dtype.kind == "u":  # torch knows few unsigned types; labels fit int64
        values = values.astype(np.int64)
    if values.dtype.kind not in "bif" or values.dtype.itemsize > 8:
        raise UserError(f"{where} has type {values.dtype}; store numbers, as float32 or int64")
    return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))


def unit_rows(array: Any, where: str, dimension: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the rows of `array` scaled to length one, and their lengths before: (N, D), (N,) float32.

    Norms are taken in float64. `where` begins the refusal, for instance ``"dtd.npz: support_features"``.

    Raises:
        UserError: wrong type or shape, no rows, NaN or infinity, a row of zeros, or D != `dimension`.
    """
    features = as_tensor(array, where)
    if features.dtype not in _FLOATS:
        raise UserError(f"{where} has type {_dtype_name(features)}; store features as float16, 32 or 64")
    if features.ndim != 2:
        raise UserError(f"{where} has shape {tuple(features.shape)}; features need two dimensions, (rows, D)")
    if not features.shape[0] or not features.shape[1]:
        raise UserError(f"{where} is empty, shape {tuple(features.shape)}; give at least one row")
    if dimension is not None and features.shape[1] != dimension:
        raise UserError(
            f"{where} has {features.shape[1]} columns where the support features have {dimension}; "
            "encode both with the same backbone"
        )
    features = features.double()
    bad = ~torch.isfinite(features).all(dim=1)
    _refuse_row(bad, where, "holds NaN or infinity; drop the row or encode it again")
    norms = features.norm(dim=1)
    _refuse_row(norms == 0, where, "is all zeros and has no direction; drop the row or encode it again")
    limits = torch.finfo(torch.float32)
    out_of_range = (norms < limits.tiny) | (norms > limits.max)
    _refuse_row(out_of_range, where, "has a length that float32 cannot hold; rescale or encode it again")
    return (features / norms[:, None]).float(), norms.float()


def class_labels(array: Any, where: str, rows: int) -> Tensor:
    """Return `array` as (rows,) int64 class indices, all >= 0.

    Raises:
        UserError: not integers, not one per row, or negative.
    """
    labels = as_tensor(array, where)
    if labels.ndim != 1:
        raise UserError(f"{where} has shape {tuple(labels.shape)}; labels need one dimension, one per row")
    if labels.dtype not in _INTEGERS:
        if labels.is_floating_point():
            broken = (labels != labels.round()) | ~torch.isfinite(labels)
            _refuse_row(broken, where, "is not an integer; labels are class indices 0, 1, 2, ...", labels)
        raise UserError(f"{where} has type {_dtype_name(labels)}; store labels as integers, int64")
    if len(labels) != rows:
        raise UserError(f"{where} has {len(labels)} entries for {rows} feature rows; give one label per row")
    labels = labels.long()
    _refuse_row(labels < 0, where, "is negative; labels are class indices 0, 1, 2, ...", labels)
    return labels


def labels_below(labels: Tensor, classes: int, where: str) -> None:
    """Refuse labels of `classes` or more."""
    remedy = f"is out of range: there are {classes} classes, so labels run from 0 to {classes - 1}"
    _refuse_row(labels >= classes, where, remedy, labels)


def names_of_classes(names: Any, where: str) -> tuple[str, ...]:
    """Return class names as a tuple of non-empty strings.

    Raises:
        UserError: not a flat list of strings, or an empty one among them.
    """
    if isinstance(names, np.ndarray):
        if names.ndim != 1 or names.dtype.kind not in "US":
            what = f"has type {names.dtype} and shape {names.shape}"
            raise UserError(f"{where} {what}; store a one-dimensional array of strings")
        names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names.tolist()]
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise UserError(f"{where} is no list of names; give one string per class")
    for row, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where} row {row} is {name!r}; give every class a name")
    return tuple(names)


def positive_scalar(value: Any, where: str) -> float:
    """Return `value` as a finite number above zero; arrays of one element count as scalars."""
    number = as_tensor(value, where)
    if number.numel() != 1:
        raise UserError(f"{where} has shape {tuple(number.shape)}; it is one number")
    result = float(number)
    if not (np.isfinite(result) and result > 0):
        raise UserError(f"{where} is {result}; it must be finite and above zero (CLIP's is about 100)")
    return result


def _refuse_row(bad: Tensor, where: str, why: str, values: Tensor | None = None) -> None:
    """Raise for the first row where `bad` (N,) holds, telling its value and how many more there are."""
    count = int(bad.sum())
    if not count:
        return
    row = int(bad.nonzero()[0])
    value = "" if values is None else f" ({values[row].item()})"
    others = "" if count == 1 else f" (and {count - 1} more)"
    raise UserError(f"{where} row {row}{value}{others} {why}")


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
