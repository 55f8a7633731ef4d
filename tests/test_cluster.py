"""Work on a local Ray cluster of two workers: results as in one process, errors, workers that die."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from ray_work import work
from small_problems import tiny_task

from bayes_clip.cluster import Cluster, running, spread
from bayes_clip.errors import UserError
from bayes_clip.evaluation.comparison import compare
from bayes_clip.settings import FitSettings

TWO = Cluster(workers=2)
CLOCKS = ("fit_seconds", "predict_seconds")


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A cluster that all tests here share: it takes seconds to start."""
    pytest.importorskip("ray")
    with running(TWO):
        yield


def ended(*items: tuple[int, str]) -> dict[int, object]:
    return dict(spread(TWO, work, ["left", "right"], items))


def test_a_comparison_on_two_workers_is_that_of_one_process_row_for_row(ray: None) -> None:
    tasks = [tiny_task(ood=True), tiny_task(seed=1, name="other")]
    asked = {
        "engines": ("zero_shot", "map", "ekf"),
        "shots": [1, 9],
        "seeds": [0, 1],
        "settings": FitSettings(prior_variance=0.01),
    }
    alone, spread_out = compare(tasks, **asked), compare(tasks, cluster=TWO, **asked)  # type: ignore[arg-type]
    assert alone.notes == spread_out.notes and alone.config == spread_out.config
    assert len(alone.runs) == len(spread_out.runs) == 2 * 3 * 2 * 2
    for one, other in zip(alone.runs, spread_out.runs, strict=True):
        assert without_clocks(one.row) == without_clocks(other.row)
        assert list(one.row) == list(other.row)
        for name, values in vars(one).items():
            if isinstance(values, np.ndarray):
                assert np.array_equal(values, getattr(other, name)), name


def without_clocks(row: object) -> dict[str, object]:
    return {name: value for name, value in dict(row).items() if name not in CLOCKS}  # type: ignore[call-overload]


def test_results_come_by_number_with_threads_shared_out(ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = ended((0, "a"), (1, "b"), (0, "c"))
    assert found == {0: ("left a", 1), 1: ("right b", 1), 2: ("left c", 1)}


def test_what_a_worker_refuses_is_the_result_of_its_item(ray: None) -> None:
    found = ended((0, "a"), (0, "refused"), (1, "b"))
    assert isinstance(found[1], UserError) and str(found[1]) == "row 7: is wrong; mend it"
    assert found[0][0] == "left a" and found[2][0] == "right b"  # type: ignore[index]


def test_a_fault_in_a_worker_comes_with_its_traceback(ray: None) -> None:
    with pytest.raises(RuntimeError, match="in a worker: ZeroDivisionError: by nought") as fault:
        ended((0, "broken"))
    assert "ray_work.py" in fault.value.__notes__[0]


def test_an_item_whose_worker_is_killed_is_worked_on_again(ray: None, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    found = ended((0, f"dies once {mark}"), (1, "b"))
    assert mark.exists() and found[0][0] == "left mark" and found[1][0] == "right b"  # type: ignore[index]


def test_one_refusal_ends_a_comparison(ray: None) -> None:
    wide = FitSettings(prior_variance=0.01, device="cuda:1")
    with pytest.raises(UserError, match=r"--device cuda:1: a worker sees one device"):
        compare([tiny_task()], engines=["map"], settings=wide, cluster=TWO)


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install "bayes-clip\[ray\]"'):
        compare([tiny_task()], engines=["map"], cluster=TWO)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "--workers N or --ray-address"),
        ({"workers": 0}, "--workers 0: must be at least 1"),
        ({"address": " "}, "--ray-address is empty"),
    ],
)
def test_clusters_that_cannot_be(asked: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Cluster(**asked)


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert [Cluster(workers=n).threads for n in (1, 3, 16)] == [8, 2, 1]
    assert Cluster(address="auto").threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Cluster(workers=16).threads == Cluster(address="auto").threads == 3


def test_ray_is_imported_by_nobody_who_does_not_ask() -> None:
    assert asdict(TWO) == {"workers": 2, "address": None}
    import subprocess

    code = "import sys, bayes_clip.evaluation.comparison, bayes_clip.cli; assert 'ray' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
