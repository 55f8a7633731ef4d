"""The README's code runs, and its numbers are those that the script wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_problems import tiny_task

from bayes_clip.fitting import fit
from bayes_clip.kernels.roofline import filter_seconds
from bayes_clip.rates import Rates
from bayes_clip.settings import FitSettings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(saying: str) -> list[str]:
    """The README's Python that says this."""
    return [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if saying in code]


def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("import bayes_clip as bc")
    assert len([line for line in code.splitlines() if line]) <= 10
    exec(code, {})
    assert (tmp_path / "posterior" / "posterior.json").is_file()
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()


def test_the_model_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there, on features of the width and the number of classes that it names."""
    (code,) = blocks("def model(")
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    task = tiny_task(classes=5, features=512, shots=2, queries=4)
    settings = FitSettings(model=str(tmp_path / "mine.py"), covariance="diagonal", rule="plain")
    posterior = fit(task, settings).posterior
    assert posterior.predict(task.query_features).probabilities.shape == (20, 5)


def test_numbers_are_those_of_the_script() -> None:
    tables = re.findall(r"<!-- (\w+): begin -->\n(.*?)<!-- \1: end -->", README, re.DOTALL)
    assert tables
    for name, table in tables:
        folder = ROOT / "analysis" / ("benchmarks" if name == "results" else "results")
        assert table == (folder / f"{name}.md").read_text(encoding="utf-8")


def test_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_the_seconds_that_were_computed_for_a_gpu_are_those_of_the_roofline() -> None:
    published = Rates(gemm_flops_per_second=60e12, copy_bytes_per_second=4.8e12)
    assert f"would take {filter_seconds(1000, 512, 16_000, 64, published):.2f} s" in README
