from __future__ import annotations

from dataclasses import replace

from small_problems import tiny_task

from bayes_clip.model import AdapterModel, find_model
from bayes_clip.recipe import Recipe
from bayes_clip.runnable import why_not


class Published(AdapterModel):
    engines = ("sgd",)
    recipe = Recipe(source="a paper", optimizer="sgd", learning_rate=0.1, epochs=1)


class InsideEncoder(AdapterModel):
    uses_encoder = True


class OfPixels(AdapterModel):
    takes = "pixels"


def test_what_runs_has_no_reason_against_it() -> None:
    for engine in ("map", "ekf", "zero_shot"):
        assert why_not(find_model("linear_probe"), "linear_probe", engine, tiny_task()) is None
    assert why_not(Published, "published", "sgd", tiny_task()) is None


def test_reasons_name_program_engine_and_remedy() -> None:
    task = tiny_task()
    assert why_not(Published, "published", "ekf", task) == (
        "published runs under sgd, not under ekf; use one of them"
    )
    assert "has no recipe" in str(why_not(InsideEncoder, "mine", "sgd", task))
    assert "needs text_features" in str(
        why_not(find_model("linear_probe"), "linear_probe", "zero_shot", replace(task, text_features=None))
    )
    assert "give pictures, or the --backbone" in str(why_not(InsideEncoder, "mine", "ekf", task))
    assert "takes pictures" in str(why_not(OfPixels, "mine", "ekf", task))
