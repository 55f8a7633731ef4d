"""Work on a local Ray cluster of two workers: results as in one process, errors, workers that die."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ray_work import work
from small_problems import tiny_task

import bayes_clip
from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.cluster import Cluster, running, spread
from bayes_clip.data.dataset_root import find_data_sets
from bayes_clip.data.encode_across import encode_across
from bayes_clip.data.feature_file import save_feature_task
from bayes_clip.data.feature_stream import write_features
from bayes_clip.data.listing import list_pictures
from bayes_clip.data.prepared import Draws, Reading, prepare_all
from bayes_clip.errors import UserError
from bayes_clip.evaluation.comparison import compare
from bayes_clip.evaluation.protocol import Grid, run_protocol
from bayes_clip.settings import FitSettings

TWO = Cluster(workers=2)
CLOCKS = ("fit_seconds", "predict_seconds")


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A cluster that all tests here share: it takes seconds to start."""
    pytest.importorskip("ray")
    support = str(Path(__file__).parent / "support")  # where workers find `ray_work`
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", support, prepend=os.pathsep)
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


def test_a_protocol_on_two_workers_writes_the_same_table(ray: None, tmp_path: Path) -> None:
    for name, seed in {"ants": 0, "bees": 1}.items():
        save_feature_task(tiny_task(4, shots=4, seed=seed, name=name), tmp_path / f"{name}.npz")
    grid = Grid(
        engines=("zero_shot", "ekf"), shots=(1, 2), seeds=(1,), settings=FitSettings(prior_variance=0.01)
    )
    found = find_data_sets(tmp_path, ["ants", "bees"])
    data_sets = prepare_all(found, Reading(None), Draws(grid.shots, grid.seeds))[0]
    alone = run_protocol(grid, data_sets, tmp_path / "alone")
    spread_out = run_protocol(grid, data_sets, tmp_path / "two", cluster=TWO)
    assert len(alone.rows) == spread_out.fitted == 8 and spread_out.failures == ()
    assert [without_clocks(row) for row in alone.rows] == [without_clocks(row) for row in spread_out.rows]


def test_features_of_two_workers_are_those_of_one_process(
    ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(70):
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (3 * number, 90, 200 - number)).save(path)
    (tmp_path / "pictures" / "7.png").write_bytes(b"no picture")
    listing, backbone = list_pictures(tmp_path / "pictures"), load_backbone()
    alone, by_two = tmp_path / "alone.npz", tmp_path / "two.npz"
    write_features(backbone, listing, alone, skip_broken=True)
    monkeypatch.setenv("BAYES_CLIP_CACHE", str(tmp_path / "store"))
    encode_across(TWO, backbone, listing)
    written = write_features(backbone, listing, by_two, skip_broken=True)
    assert (written.rows, written.encoded, written.broken) == (69, 0, 1)
    with np.load(alone) as one, np.load(by_two) as two:
        assert one.files == two.files
        assert all(np.array_equal(one[name], two[name]) for name in one.files)


def test_features_of_workers_need_a_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    monkeypatch.setenv("BAYES_CLIP_CACHE", "")
    with pytest.raises(UserError, match="name one with --store DIR"):
        encode_across(TWO, load_backbone(), list_pictures(tmp_path / "one.png"))


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


def test_ray_is_imported_in_one_function_alone() -> None:
    package = Path(bayes_clip.__file__).parent
    importing = [
        (path.name, line)
        for path in package.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.split()[:2] in (["import", "ray"], ["from", "ray"])
    ]
    assert importing == [("cluster.py", "        import ray")]
