"""The made task of the study of text-side filters."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))

import text_side_filter as study

from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.inputs import task_context
from bayes_clip.model import find_model


@pytest.mark.parametrize("words", [1, 3])
def test_a_word_of_the_template_is_a_context_token(words: int) -> None:
    backbone, kind = load_backbone(), find_model("coop")
    task = study.task_of(backbone, words)
    program = kind(task_context(kind, task), 1.0)
    (contexts,) = (site.mean for site in program.prior().values())
    assert contexts.shape[0] == words and len(task.support_labels) == study.SHOTS * len(study.NAMES)
