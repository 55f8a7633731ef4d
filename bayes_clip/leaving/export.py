"""Writing a posterior's predictive for use without bayes_clip: torch, ONNX, and what it means in JSON."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bayes_clip.errors import UserError, nearest
from bayes_clip.evaluation.holdout import FALSE_ALARMS, HeldOut, NoveltyLimit
from bayes_clip.leaving.predictive_program import OUTPUTS, PredictiveProgram, predictive_program
from bayes_clip.posterior import Posterior
from bayes_clip.storage.files import written_whole
from bayes_clip.versions import installed_versions

FORMATS = ("torch", "onnx")
NAMES = {"torch": "predictive.pt2", "onnx": "predictive.onnx", "weights": "weights.safetensors"}
ABOUT = "predictive.json"
FILES = frozenset({*NAMES.values(), "predictive.onnx.data", ABOUT})
ONNX_PACKAGES = ("onnx", "onnxscript")
OPSET = 18
INLINE_BYTES = 2**30  # above which ONNX keeps tensors in a file of their own: one file holds 2 GiB at most
TOLERANCE = 1e-5  # in probabilities, against `Posterior.predict`
EXAMPLE_ROWS = 3


def check_formats(formats: Sequence[str]) -> None:
    """Refuse unknown formats, and ONNX where its packages are missing.

    Raises:
        UserError: names the format, or what to install.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(
                f"--format {name}: no such format.{nearest(name, FORMATS)} Known: {', '.join(FORMATS)}"
            )
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        raise UserError(f'--format onnx: needs {" and ".join(missing)}; pip install "bayes-clip[export]"')


def export_posterior(
    posterior: Posterior,
    held_out: HeldOut | None,
    folder: Path,
    formats: Sequence[str] = FORMATS,
    false_alarms: float = FALSE_ALARMS,
) -> dict[str, Any]:
    """Write FILES into an existing folder and return what stands in the JSON.

    The torch program is a torch.export program: loaded by torch alone, of the same version or, as far as
    PyTorch keeps its word, a later one. TorchScript, which promised more, is deprecated. ONNX is the format
    to keep. The mean weights stand beside, as safetensors.

    Raises:
        UserError: a posterior that cannot be exported (`predictive_program`), or an unknown format.
    """
    check_formats(formats)
    limit = None if held_out is None else held_out.novelty_limit(false_alarms)
    program = predictive_program(posterior, None if limit is None else limit.value)
    about = _about(posterior, limit, formats)
    traced = _traced(program, posterior.program.width)
    with _quiet():
        if "torch" in formats:
            with written_whole(folder / NAMES["torch"]) as path, path.open("wb") as file:
                torch.export.save(traced, file)
        if "onnx" in formats:
            _write_onnx(traced, program, folder / NAMES["onnx"])
    _write_weights(posterior, folder / NAMES["weights"])
    with written_whole(folder / ABOUT) as path:
        path.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return about


def _traced(program: PredictiveProgram, width: int) -> torch.export.ExportedProgram:
    """The module as a graph, for any number of rows."""
    rows = torch.nn.functional.normalize(
        torch.randn(EXAMPLE_ROWS, width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    with _quiet(), torch.no_grad():
        return torch.export.export(program, (rows,), dynamic_shapes=({0: torch.export.Dim("rows")},))


def _write_onnx(traced: torch.export.ExportedProgram, program: PredictiveProgram, path: Path) -> None:
    outputs = OUTPUTS if program.limit is not None else OUTPUTS[:-1]
    size = sum(buffer.numel() * buffer.element_size() for buffer in program.buffers())
    made = torch.onnx.export(
        traced,
        dynamo=True,
        opset_version=OPSET,
        input_names=["features"],
        output_names=list(outputs),
        verbose=False,
    )
    assert made is not None
    if size > INLINE_BYTES:  # the name of the second file is written into the first
        made.save(path, external_data=True)
        return
    with written_whole(path) as temporary:
        made.save(temporary, external_data=False)


def _write_weights(posterior: Posterior, path: Path) -> None:
    from safetensors.torch import save

    tensors = {"mean_weights": posterior.weights.mean.detach().cpu().contiguous()}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(tensors))


def _about(posterior: Posterior, limit: NoveltyLimit | None, formats: Sequence[str]) -> dict[str, Any]:
    """What a program that uses the files has to know."""
    source, program = posterior.source, posterior.program
    outputs = {
        "probabilities": ["rows", len(posterior.class_names)],
        "novelty": ["rows"],
        "outside": ["rows"],
    }
    if limit is None:
        del outputs["outside"]
    packages = {name: version(name) for name in ONNX_PACKAGES if "onnx" in formats}
    return {
        "format": 1,
        "files": {name: NAMES[name] for name in (*formats, "weights")},
        "input": {
            "features": ["rows", program.width],
            "dtype": "float32",
            "scaled to unit length": program.takes == "unit",
        },
        "outputs": outputs,
        "class_names": list(posterior.class_names),
        "backbone": source.backbone,
        "logit_scale": float(program.logit_scale),
        "predictive": posterior.predictive,
        "temperature": 1.0,  # calibration is the predictive's own: no logit is divided by another number
        "covariance_scale": source.covariance_scale,
        "novelty_score": posterior.novelty_score,
        "novelty_limit": None if limit is None else limit.value,
        "false_alarms": None if limit is None else limit.false_alarms,
        "agrees_with_predict_to": TOLERANCE,
        "left_out": "aleatoric and epistemic uncertainty: predict draws them, by a hash of each row",
        "fit": {
            "task": source.task,
            "model": source.settings.model,
            "engine": source.settings.engine,
            "covariance": source.settings.family,
            "shots": source.shots,
            "seed": source.seed,
            "labels": source.support_rows,
            "prior_variance": source.prior_variance,
        },
        "versions": {**installed_versions(), **packages},
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters tell their own programmers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
