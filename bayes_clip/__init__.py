"""From a handful of labelled images to a calibrated posterior over CLIP adapters.

    import bayes_clip as bc

Names are imported when first used, so that ``import bayes_clip`` and ``bayes-clip --help`` are quick.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Threads that spin while they wait make linear algebra 20 to 40 times slower as soon as another process wants
# the cores; asleep they cost microseconds. Read when torch is first imported; a setting of yours wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from bayes_clip.backbone.encoder import Backbone, load_backbone
    from bayes_clip.data.feature_file import FeatureFile
    from bayes_clip.data.resolve import load_input, load_task
    from bayes_clip.data.task import Task, few_shot, make_task
    from bayes_clip.errors import UserError
    from bayes_clip.evaluation.checking import CheckReport, check
    from bayes_clip.evaluation.comparison import compare
    from bayes_clip.evaluation.results import Comparison, Run, summarise
    from bayes_clip.fitting import Fit, fit
    from bayes_clip.model import AdapterModel
    from bayes_clip.posterior import Posterior
    from bayes_clip.predictive import Prediction
    from bayes_clip.report.check_write import write_check
    from bayes_clip.report.export import to_arviz
    from bayes_clip.report.fit_write import write_fit
    from bayes_clip.report.write import write_comparison
    from bayes_clip.settings import FitSettings
    from bayes_clip.state_space import StateSpace
    from bayes_clip.storage.folder import load_posterior
    from bayes_clip.streaming import Update, update
    from bayes_clip.suggesting import Suggestions, suggest
    from bayes_clip.transporting import Transported, destination, transport
    from bayes_clip.unrolled import unroll

_HOMES = {
    "AdapterModel": "bayes_clip.model",
    "Backbone": "bayes_clip.backbone.encoder",
    "CheckReport": "bayes_clip.evaluation.checking",
    "Comparison": "bayes_clip.evaluation.results",
    "FeatureFile": "bayes_clip.data.feature_file",
    "Fit": "bayes_clip.fitting",
    "FitSettings": "bayes_clip.settings",
    "Posterior": "bayes_clip.posterior",
    "Prediction": "bayes_clip.predictive",
    "Run": "bayes_clip.evaluation.results",
    "StateSpace": "bayes_clip.state_space",
    "Suggestions": "bayes_clip.suggesting",
    "Task": "bayes_clip.data.task",
    "Transported": "bayes_clip.transporting",
    "Update": "bayes_clip.streaming",
    "UserError": "bayes_clip.errors",
    "check": "bayes_clip.evaluation.checking",
    "compare": "bayes_clip.evaluation.comparison",
    "destination": "bayes_clip.transporting",
    "few_shot": "bayes_clip.data.task",
    "fit": "bayes_clip.fitting",
    "load_backbone": "bayes_clip.backbone.encoder",
    "load_input": "bayes_clip.data.resolve",
    "load_posterior": "bayes_clip.storage.folder",
    "load_task": "bayes_clip.data.resolve",
    "make_task": "bayes_clip.data.task",
    "suggest": "bayes_clip.suggesting",
    "summarise": "bayes_clip.evaluation.results",
    "to_arviz": "bayes_clip.report.export",
    "transport": "bayes_clip.transporting",
    "unroll": "bayes_clip.unrolled",
    "update": "bayes_clip.streaming",
    "write_check": "bayes_clip.report.check_write",
    "write_comparison": "bayes_clip.report.write",
    "write_fit": "bayes_clip.report.fit_write",
}

__all__ = [
    "AdapterModel",
    "Backbone",
    "CheckReport",
    "Comparison",
    "FeatureFile",
    "Fit",
    "FitSettings",
    "Posterior",
    "Prediction",
    "Run",
    "StateSpace",
    "Suggestions",
    "Task",
    "Transported",
    "Update",
    "UserError",
    "check",
    "compare",
    "destination",
    "few_shot",
    "fit",
    "load_backbone",
    "load_input",
    "load_posterior",
    "load_task",
    "make_task",
    "suggest",
    "summarise",
    "to_arviz",
    "transport",
    "unroll",
    "update",
    "write_check",
    "write_comparison",
    "write_fit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bayes_clip' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
