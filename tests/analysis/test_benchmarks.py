"""The benchmark: every case runs and agrees at a toy size, and no wrong answer passes for a fast one."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from rich.console import Console

from analysis.benchmarks import __main__ as command
from analysis.benchmarks import contest as contests
from analysis.benchmarks import growth, laplace_peer, peers
from analysis.benchmarks.cases import CASES, Case
from analysis.benchmarks.contest import COLUMNS, Contest, Partly, Size, Work, fastest, run, timed
from analysis.benchmarks.features import clip_like_task
from analysis.benchmarks.figures import speed
from bayes_clip.rates import Rates

CPU = torch.device("cpu")
NEEDED = {"fit": "laplace", "predictive_variance": "laplace", "update_diagonal": "posteriors"}


@pytest.fixture(autouse=True)
def quick_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's rates are not what is tested here, and take a second each time."""
    monkeypatch.setattr(contests, "measure", lambda device, dtype: Rates(1e11, 1e10))


def a_contest(agreement: float = 0.0, case: str = "made_up@C2,D2,N2") -> Contest:
    return Contest(
        case=case,
        ours=lambda: 1,
        peers={"peer 1.0 backend": lambda: 2},
        agreement=lambda ours, theirs: agreement,
        tolerance=1e-6,
        work=Work(flops=1e8, bytes_moved=1e3),
    )


def only(case: Contest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command know one case, `made_up`."""

    def found(size: Size, device: torch.device) -> Iterator[Contest]:
        yield case

    size = Size(2, 2, 2)
    monkeypatch.setattr(command, "CASES", {"made_up": Case(found, (size,), size)})


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_and_agrees(name: str) -> None:
    pytest.importorskip(NEEDED.get(name, "torch"))
    found = [replace(one, rounds=1, repeats=1) for one in CASES[name].contests(CASES[name].toy, CPU)]
    assert found
    for one in found:
        rows = list(run(one, CPU, "cpu"))
        assert [row.peer for row in rows] == list(one.peers)
        for row in rows:
            assert row.case.startswith(f"{name}@{CASES[name].toy}")
            assert row.agrees, row
            assert row.ours_seconds > 0 and row.peer_seconds > 0 and row.limit_seconds > 0
            assert row.speedup == pytest.approx(row.peer_seconds / row.ours_seconds)
            assert row.fraction_of_limit == pytest.approx(row.limit_seconds / row.ours_seconds)


def test_case_names_carry_their_size() -> None:
    assert str(Size(100, 512, 1000)) == "C100,D512,N1000"
    assert str(Size(100, 512, 1000, "b64")) == "C100,D512,N1000,b64"
    names = {"fit", "predictive_variance", "update_diagonal", "vi_step", "map", "blocked_filter", "encode"}
    assert set(CASES) == names
    assert CASES["update_diagonal"].sizes[0].classes * CASES["update_diagonal"].sizes[0].features == 24_064


def test_the_command_writes_exactly_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(a_contest(), monkeypatch)
    assert command.main(["--only", "made_up", "--out", str(tmp_path)], Console(quiet=True)) == 0
    with (tmp_path / "results.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    header = "case,device,ours_seconds,peer,peer_seconds,speedup,limit_seconds,fraction_of_limit,agreement"
    assert lines[0] == header.split(",")
    assert lines[1][:2] == ["made_up@C2,D2,N2", "cpu"] and lines[1][3] == "peer 1.0 backend"
    about = json.loads((tmp_path / "results.json").read_text())
    assert about["processor"] and about["versions"]["torch"] == version("torch")
    assert about["tolerances"] == {"made_up@C2,D2,N2, peer 1.0 backend": 1e-6}
    assert (tmp_path / "benchmarks.png").stat().st_size > 1000
    assert "peer 1.0 backend" in (tmp_path / "benchmarks.svg").read_text()
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left behind"


@pytest.mark.parametrize("agreement", [1e-5, float("nan")])
def test_answers_that_disagree_end_the_command_with_one(
    agreement: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(a_contest(agreement), monkeypatch)
    assert command.main(["--only", "made_up", "--out", str(tmp_path)], Console(quiet=True)) == 1
    assert not list(tmp_path.iterdir())


def test_unknown_cases_are_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "blocked_filtr"], Console(width=200)) == 2
    said = capsys.readouterr().out
    assert "blocked_filtr" in said and "blocked_filter" in said and "growth" in said


def test_a_missing_peer_is_skipped_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(size: Size, device: torch.device) -> Iterator[Contest]:
        peers.titled("no-such-package-of-anyones")
        yield a_contest()

    size = Size(2, 2, 2)
    monkeypatch.setattr(command, "CASES", {"made_up": Case(found, (size,), size)})
    assert command.main(["--only", "made_up", "--out", str(tmp_path)], Console(width=200)) == 0
    said = capsys.readouterr().out
    assert "no-such-package-of-anyones is not installed" in said and "pip install" in said


def test_runs_alternate_and_seconds_are_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock = iter([5.0, 1.0, 1.0, 7.0, 3.0, 2.0])

    def pretend(work: object, device: torch.device, repeats: int = 1) -> tuple[float, object]:
        return next(clock), work()  # type: ignore[operator]

    monkeypatch.setattr(contests, "timed", pretend)
    case = replace(
        a_contest(),
        ours=lambda: order.append("ours"),
        peers={"peer": lambda: order.append("peer")},
        rounds=3,
        parts=2,
    )
    row = next(run(case, CPU, "cpu"))
    assert order == ["ours", "peer"] * 4, "one round more than counted: the warm-up"
    assert (row.ours_seconds, row.peer_seconds) == (1.5, 1.0)  # medians of (5, 1, 3) and (1, 7, 2), halved
    assert row.limit_seconds == pytest.approx(1e-3)  # 1e8 operations at 1e11 a second
    assert row.fraction_of_limit == pytest.approx(1e-3 / 1.5)


def test_what_was_not_run_is_added_in_proportion() -> None:
    seconds, result = timed(lambda: Partly("some rows", 100.0), CPU)
    assert result == "some rows" and 100 < seconds < 101


def test_the_fastest_way_is_chosen_by_time() -> None:
    ways = {"slow": lambda: sum(range(300_000)), "quick": lambda: None}
    assert fastest(ways, CPU) == "quick"


def test_features_are_like_clips() -> None:
    task = clip_like_task(20, 64, 60, 200)
    assert task.support_features.norm(dim=1) == pytest.approx(torch.ones(60), abs=1e-5)
    cosines = task.query_features @ task.text_features.mT
    assert 0.1 < float(cosines.mean()) < 0.5 and float(cosines.std(dim=1).mean()) < 0.1
    right = (cosines.argmax(1) == task.query_labels).double().mean()
    assert 0.15 < float(right) < 0.8, "better than chance, and something is left to learn"
    again = clip_like_task(20, 64, 60, 200)
    assert torch.equal(task.support_features, again.support_features)
    assert int(task.support_labels.bincount().min()) == 3


def test_their_probit_twin_refuses_other_numbers() -> None:
    pytest.importorskip("laplace")
    task = clip_like_task(3, 8, 12, 6)
    design, queries = 100 * task.support_features, 100 * task.query_features
    head = laplace_peer.Head(design, task.support_labels, task.text_features, 0.01)
    found = laplace_peer.posterior(laplace_peer.trained(head), head, "kron", "BackPackGGN")
    theirs = laplace_peer.probit(found, queries, 2, 1).result
    assert laplace_peer.probit_twin(found, queries, theirs).shape == (6, 3)
    with pytest.raises(ArithmeticError, match="differ by"):
        laplace_peer.probit_twin(found, queries, theirs.flip(1))


def test_growth_finds_the_power() -> None:
    curve = growth.Curve("fit", "rows", (1, 2, 4, 8), (3.0, 12.0, 48.0, 192.0))
    assert curve.slope == pytest.approx(2.0)
    assert growth.lines([curve])[0] == ["fit", "rows", "1", "3", "2.000"]


def test_growth_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "TIMES", 1)
    monkeypatch.setattr(growth, "TOY_SWEEPS", {"rows": (12, 24)})
    assert command.main(["--toy", "--only", "growth", "--out", str(tmp_path)], Console(quiet=True)) == 0
    lines = (tmp_path / "growth.csv").read_text().splitlines()
    assert lines[0] == "what,varied,value,seconds,slope" and len(lines) == 1 + 2 * len(growth.WORKS)
    assert (tmp_path / "growth.png").exists() and (tmp_path / "growth.svg").exists()


def test_columns_are_those_of_the_figure_and_the_table() -> None:
    rows = list(run(a_contest(), CPU, "cpu"))
    assert all(hasattr(rows[0], column) for column in COLUMNS)
    assert len(speed(rows).axes) == 2
