"""`bayes-clip update` and `fit --resume` at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Cli, commands
from streams import described, stored

CLASSES, DIMENSION = 3, 8
NAMES = ("ant", "bee", "cat", "dog")
CENTRES = np.eye(4, DIMENSION)
GIVEN = ("--order", "given", "--batch-size", 2, "--prior-variance", 0.02, "--predictive", "plug_in")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line in an empty folder of its own: status, output, errors."""
    return commands(tmp_path, capsys, monkeypatch)


def arrays(classes: int = CLASSES, each: int = 8) -> dict[str, np.ndarray]:
    """A feature task whose rows run through the classes."""
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(classes), each)
    return {
        "support_features": CENTRES[labels] + 0.3 * generator.normal(size=(len(labels), DIMENSION)),
        "support_labels": labels,
        "query_features": CENTRES[:classes],
        "query_labels": np.arange(classes),
        "text_features": CENTRES[:classes] + 0.2 * generator.normal(size=(classes, DIMENSION)),
        "class_names": np.array(NAMES[:classes]),
    }


def save(path: str, rows: slice = slice(None), **changes: Any) -> None:
    whole = arrays() | changes
    part = {name: whole[name][rows] for name in ("support_features", "support_labels")}
    np.savez(path, **{name: value for name, value in (whole | part).items() if value is not None})


def test_a_fit_in_pieces_is_one_fit_byte_for_byte(run: Cli) -> None:
    save("all.npz")
    save("first.npz", slice(0, 8))
    nothing = {"query_features": None, "query_labels": None, "text_features": None}
    save("second.npz", slice(8, 14), **nothing)
    save("third.npz", slice(14, 24), **nothing)
    assert run("fit", "all.npz", "--out", "whole", *GIVEN)[0] == 0
    assert run("fit", "first.npz", "--out", "pieces", *GIVEN)[0] == 0
    for piece in ("second.npz", "third.npz"):
        status, output, errors = run("update", "pieces", piece)
        assert status == 0 and "labels: Posterior(ekf on 'first'" in output, errors
    assert stored(Path("pieces")) == stored(Path("whole"))
    status, output, _ = run("predict", "pieces", "all.npz")
    assert status == 0 and "note: verdicts and abstention go by the fit to 8 labels, 2 updates ago" in output


def test_a_class_comes_and_goes(run: Cli) -> None:
    save("pets.npz")
    np.savez("four.npz", **arrays(4, 2))
    assert run("fit", "pets.npz", "--out", "posterior", *GIVEN)[0] == 0
    status, output, _ = run("update", "posterior", "four.npz", "--out", "wider")
    assert status == 0 and "classes added: dog" in output and "note: class 'dog' is new" in output
    assert described(Path("wider"))["class_names"] == [*NAMES]
    assert described(Path("posterior"))["class_names"] == [*NAMES[:3]]
    status, output, _ = run("update", "wider", "--remove-class", "dog", "--remove-class", "bee")
    assert status == 0 and "classes removed: dog, bee" in output
    assert described(Path("wider"))["class_names"] == ["ant", "cat"]
    assert run("evaluate", "posterior", "pets.npz")[0] == 0


def test_what_was_finished_is_not_done_again(run: Cli) -> None:
    save("pets.npz")
    assert run("fit", "pets.npz", "--out", "posterior", "--resume", *GIVEN)[0] == 0
    status, output, _ = run("fit", "pets.npz", "--out", "posterior", "--resume", *GIVEN)
    assert (status, output) == (0, "finished before in posterior\n")
    run("update", "posterior", "pets.npz", "--shots", 2, "--passes", 1)
    before = stored(Path("posterior"))
    status, output, _ = run("update", "posterior", "pets.npz", "--shots", 2, "--passes", 1, "--resume")
    assert status == 0 and output.startswith("finished before in posterior")
    assert stored(Path("posterior")) == before


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "no posterior": (("nowhere", "pets.npz"), "no posterior there"),
    "nothing": (("posterior",), "nothing to update"),
    "no task": (("posterior", "petz.npz"), "no such task"),
    "not a number": (("posterior", "broken.npz"), "support_features row 4"),
    "another dimension": (("posterior", "wide.npz"), "features of 9 columns where the posterior takes 8"),
    "another backbone": (("posterior", "other.npz"), "encoded with backbone bbbb"),
    "an engine that does not stream": (
        ("map", "pets.npz"),
        "map does not stream; fit again with --engine ekf",
    ),
    "no such class": (("posterior", "--remove-class", "bea"), "no such class. Did you mean 'bee'?"),
    "no such order": (("posterior", "pets.npz", "--order", "sorted"), "no such order"),
    "a place that is a file": (("posterior", "pets.npz", "--out", "pets.npz"), "is a file"),
    "a place with something else": (("posterior", "pets.npz", "--out", "."), "holds something else"),
}


@pytest.fixture
def prepared(run: Cli) -> Cli:
    """Two posteriors, and tasks that fit neither."""
    save("pets.npz", backbone=np.array("aaaa"))
    broken = arrays()["support_features"]
    broken[4, 2] = np.nan
    save("broken.npz", support_features=broken)
    save("other.npz", backbone=np.array("bbbb"))
    wide = {"support_features": np.ones((24, 9)), "query_features": np.ones((3, 9)), "text_features": None}
    save("wide.npz", **wide)
    run("fit", "pets.npz", "--out", "posterior", *GIVEN)
    run("fit", "pets.npz", "--out", "map", "--engine", "map", "--prior-variance", 0.02)
    return run


def test_what_cannot_be_is_one_line_and_changes_nothing(prepared: Cli) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for arguments, said in REFUSED.values():
        status, output, errors = prepared("update", *arguments)
        assert (status, output, errors.count("\n")) == (2, "", 1), (arguments, errors)
        assert said in errors, arguments
    status, _, errors = prepared("fit", "pets.npz", "--out", "map", "--engine", "map", "--resume")
    assert status == 2 and "map keeps no checkpoints" in errors
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_help_teaches_by_example(run: Cli) -> None:
    status, output, _ = run("update", "--help")
    assert status == 0 and "bayes-clip update " in output.split("Examples")[1]
