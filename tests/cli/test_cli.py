"""The command line: help, a whole round of commands, and one line for everything that cannot be done."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Cli, Outcome, commands
from PIL import Image

import bayes_clip
from bayes_clip import forecast
from bayes_clip.cli import main
from bayes_clip.inference import COVARIANCES, ENGINES, UPDATE_RULES
from bayes_clip.rates import Rates
from bayes_clip.resources import models_folder

COMMANDS = (
    *("compare", "protocol", "fit", "update", "transport", "predict", "suggest", "evaluate", "shift"),
    *("check", "export", "features", "store", "backbones", "models", "engines", "tasks"),
)
CLASSES, DIMENSION, PER_CLASS = 3, 8, 6


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line in an empty folder of its own."""
    return commands(tmp_path, capsys, monkeypatch)


def feature_arrays(**changes: Any) -> dict[str, np.ndarray]:
    """A feature task of three easy classes; `changes` replace arrays, None leaves one out."""
    generator = np.random.default_rng(0)
    centres = np.eye(CLASSES, DIMENSION)

    def around(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(CLASSES), count)
        return centres[labels] + 0.3 * generator.normal(size=(len(labels), DIMENSION)), labels

    support_features, support_labels = around(PER_CLASS)
    query_features, query_labels = around(10)
    arrays = {
        "support_features": support_features,
        "support_labels": support_labels,
        "query_features": query_features,
        "query_labels": query_labels,
        "text_features": centres + 0.2 * generator.normal(size=centres.shape),
        "class_names": np.array(["ant", "bee", "cat"]),
        "ood_features": generator.normal(size=(20, DIMENSION)),
    }
    return {name: value for name, value in (arrays | changes).items() if value is not None}


def feature_task(path: Path, **changes: Any) -> Path:
    np.savez(path, **feature_arrays(**changes))
    return path


def with_entry(array: str, index: Any, value: float) -> dict[str, np.ndarray]:
    changed = np.array(feature_arrays()[array], dtype=float)
    changed[index] = value
    return {array: changed}


def picture_folder(root: Path, *classes: str, each: int = 2) -> Path:
    for shade, name in enumerate(classes):
        for number in range(each):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (40 * shade, 10 * number, 90)).save(path)
    return root


def test_help_of_everything_teaches_by_example(cli: Cli) -> None:
    top = cli("--help")
    assert top.status == 0 and all(command in top.output for command in COMMANDS)
    for command in COMMANDS:
        outcome = cli(command, "--help")
        assert outcome.status == 0, command
        if command in COMMANDS[:7]:
            assert f"bayes-clip {command} " in outcome.output.split("Examples")[1]


def test_no_arguments_show_help(cli: Cli) -> None:
    assert cli() == cli("--help")


def test_version(cli: Cli) -> None:
    assert bayes_clip.__version__ in cli("--version").output


def test_help_does_not_load_pytorch() -> None:
    code = (
        "import sys; from bayes_clip.cli import main\n"
        "try: main(['compare', '--help'])\n"
        "finally: assert not {'torch', 'pyro', 'open_clip', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("models", sorted(path.stem for path in models_folder().glob("*.py"))),
        ("tasks", ["digits", "digits_rotated", "digits_mirrored", "shapes"]),
    ],
)
def test_listings_have_one_line_each(cli: Cli, command: str, names: list[str]) -> None:
    listed = [line.split() for line in cli(command).output.splitlines()]
    assert [words[0] for words in listed] == names
    assert all(len(words) > 3 for words in listed)


def test_engines_are_listed_with_their_covariances_and_rules(cli: Cli) -> None:
    listed = [line.split()[0] for line in cli("engines").output.splitlines() if line.strip()]
    every = [*ENGINES, "--covariance", *COVARIANCES, "--rule,", *UPDATE_RULES]
    assert listed == every


def test_compare_writes_everything(cli: Cli) -> None:
    feature_task(Path("pets.npz"))
    outcome = cli(
        *("compare", "pets.npz", "--shots", "1,2", "--seeds", "0,1"),
        *("--engines", "zero_shot,map,ekf", "--out", "result"),
    )
    assert outcome.status == 0, outcome.errors
    with open("result/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["shots"], row["seed"], row["engine"]) for row in rows] == [
        (shots, seed, engine) for shots in "12" for seed in "01" for engine in ("zero_shot", "map", "ekf")
    ]
    assert {row["task"] for row in rows} == {"pets"} and all(row["ood_auroc"] for row in rows)
    for name in ("predictions.npz", "report.html", "figures"):
        assert Path("result", name).exists()
    assert json.loads(Path("result/config.json").read_text())["versions"]["torch"]
    assert "zero_shot" in outcome.output and "result/report.html" in outcome.output
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_zero_shot_without_text_is_left_out_with_a_note(cli: Cli) -> None:
    feature_task(Path("bare.npz"), text_features=None)
    outcome = cli("compare", "bare.npz", "--engines", "zero_shot,map", "--out", "result")
    assert outcome.status == 0, outcome.errors
    with open("result/metrics.csv", newline="") as file:
        assert [row["engine"] for row in csv.DictReader(file)] == ["map"]
    assert "zero_shot" in outcome.output.split("note:")[1]


def test_a_dry_run_says_what_each_covariance_takes_and_writes_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "measure", lambda device, dtype: Rates(1e10, 1e9))
    feature_task(Path("pets.npz"))
    for options in ((), ("--out", "posterior", "--covariance", "full")):
        outcome = cli("fit", "pets.npz", "--shots", 4, "--dry-run", *options)
        assert outcome.status == 0, outcome.errors
        chosen = [line.split()[0] for line in outcome.output.splitlines() if "chosen" in line]
        assert chosen == ["full" if options else "class_block"]
        assert all(name in outcome.output for name in ("diagonal", "kronecker", "low_rank"))
        assert "12 labels of 3 classes, 8 features" in outcome.output and "GiB free" in outcome.output
    assert [entry.name for entry in Path().iterdir()] == ["pets.npz"]


def test_a_fit_needs_a_folder_to_write(cli: Cli) -> None:
    feature_task(Path("pets.npz"))
    assert_refused(cli("fit", "pets.npz"), "--out", "--dry-run")


def test_fit_predict_evaluate(cli: Cli) -> None:
    feature_task(Path("pets.npz"))
    fitted = cli("fit", "pets.npz", "--shots", 4, "--seed", 3, "--out", "posterior")
    assert fitted.status == 0, fitted.errors
    predicted = cli("predict", "posterior", "pets.npz", "--abstain-at", 0.1, "--out", "table.csv")
    assert predicted.status == 0, predicted.errors
    with open("table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 and {row["class"] for row in rows} == {"ant", "bee", "cat"}
    assert all(0 <= float(row["probability"]) <= 1 and float(row["epistemic"]) >= 0 for row in rows)
    assert {row["verdict"] for row in rows} <= {"in", "out"}
    assert {row["abstained"] for row in rows} <= {"yes", "no"}
    evaluated = cli("evaluate", "posterior", "pets.npz", "--out", "check")
    assert evaluated.status == 0, evaluated.errors
    with open("check/metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    agree = [row["class"] == ("ant", "bee", "cat")[index // 10] for index, row in enumerate(rows)]
    assert float(row["accuracy"]) == pytest.approx(np.mean(agree))


def test_features_are_written_and_read_again(cli: Cli) -> None:
    picture_folder(Path("shots"), "red", "blue")
    assert cli("features", "shots", "--out", "shots.npz").status == 0
    with np.load("shots.npz", allow_pickle=False) as archive:
        assert archive["features"].shape[0] == 4 and archive["backbone"].ndim == 0
        assert [Path(path).parent.name for path in archive["paths"]] == ["blue", "blue", "red", "red"]


def test_predict_refuses_features_of_another_backbone(cli: Cli) -> None:
    feature_task(Path("pets.npz"), backbone=np.array("0123456789abcdef"))
    assert cli("fit", "pets.npz", "--out", "posterior").status == 0
    other = feature_arrays()["query_features"]
    np.savez("other.npz", features=other, backbone=np.array("fedcba9876543210"))
    outcome = cli("predict", "posterior", "other.npz", "--out", "table.csv")
    assert_refused(outcome, "fedcba9876543210")
    assert not Path("table.csv").exists()
    picture_folder(Path("photos"), "red", "blue")
    assert_refused(cli("predict", "posterior", "photos"), "backbone")


def assert_refused(outcome: Outcome, *said: str) -> None:
    """Status 2, nothing on standard output, and one line that says all of `said`."""
    assert outcome.status == 2, outcome
    assert outcome.output == ""
    assert len(outcome.errors.splitlines()) == 1, outcome.errors
    for word in said:
        assert word in outcome.errors


BAD_TASKS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "not a number": (with_entry("support_features", (4, 2), np.nan), ("support_features", "row 4")),
    "infinite": (with_entry("query_features", (5, 0), np.inf), ("query_features", "row 5")),
    "zero row": (with_entry("query_features", 7, 0.0), ("query_features", "row 7")),
    "wrong dimension": ({"query_features": np.ones((30, DIMENSION + 1))}, ("query_features", "9", "8")),
    "label too large": ({"support_labels": np.arange(18)}, ("support_labels", "row 3", "3")),
    "label no integer": (with_entry("support_labels", 2, 0.5), ("support_labels", "row 2", "integer")),
    "text for other classes": ({"text_features": np.eye(4, DIMENSION)}, ("text_features", "4", "3")),
    "one class": ({"support_labels": np.zeros(18, int), "query_labels": np.zeros(30, int)}, ("class",)),
    "query class unseen": (
        {"support_labels": np.repeat([0, 1], 9), "text_features": None},
        ("query_labels", "'cat'"),
    ),
    "nothing in it": ({"support_features": np.ones((0, DIMENSION)), "support_labels": np.ones(0, int)}, ()),
}


@pytest.mark.parametrize("what", BAD_TASKS)
def test_bad_feature_tasks_are_refused(cli: Cli, what: str) -> None:
    changes, said = BAD_TASKS[what]
    feature_task(Path("pets.npz"), **changes)
    for command in ("compare", "fit"):
        assert_refused(cli(command, "pets.npz", "--out", "result"), "pets.npz", *said)
    assert not Path("result").exists()


BAD_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "engine": (("--engines", "map,ekff"), ("ekff", "'ekf'")),
    "model": (("--models", "linear_prob"), ("linear_prob", "'linear_probe'")),
    "model file": (("--models", "./mine.py"), ("mine.py",)),
    "covariance": (("--covariance", "clas_block"), ("clas_block", "'class_block'")),
    "order": (("--order", "balancd"), ("balancd", "balanced")),
    "zero shots": (("--shots", "0"), ("--shots", "0")),
    "shots no number": (("--shots", "few"), ("--shots", "few")),
    "seed": (("--seeds", "-1"), ("--seeds", "-1")),
    "prior variance": (("--prior-variance", "-1"), ("--prior-variance", "-1")),
    "prior variance no number": (("--prior-variance", "small"), ("--prior-variance", "small")),
    "passes": (("--passes", "0"), ("--passes",)),
    "batch size": (("--batch-size", "0"), ("--batch-size",)),
    "dtype": (("--dtype", "float8"), ("float8",)),
    "device": (("--device", "abacus"), ("abacus",)),
    "backbone": (("--backbone", "ViT-B-33", "--pretrained", "openai"), ("ViT-B-33", "ViT-B-32")),
    "weights of nothing": (("--pretrained", "openai"), ("--pretrained", "--backbone")),
    "no such option": (("--engin", "map"), ("--engin", "--engine")),
    "out set": (("--ood", "nowhere.npz"), ("nowhere.npz",)),
}


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_bad_options_are_refused(cli: Cli, what: str) -> None:
    options, said = BAD_OPTIONS[what]
    feature_task(Path("pets.npz"))
    assert_refused(cli("compare", "pets.npz", "--out", "result", *options), *said)
    assert not Path("result").exists()


def test_bad_places_are_refused(cli: Cli) -> None:
    Path("empty").mkdir()
    picture_folder(Path("one"), "red")
    picture_folder(Path("split/train"), "red", "blue")
    picture_folder(Path("split/test"), "red", "green")
    for task, said in (("digitz", "'digits'"), ("empty", "empty"), ("one", "red"), ("split", "green")):
        assert_refused(cli("compare", task, "--out", "result"), said)
    assert_refused(cli("predict", "nowhere", "empty"), "nowhere")
    assert_refused(cli("features", "nowhere", "--out", "f.npz"), "nowhere")
    assert_refused(cli("features", "one", "--out", "f.txt"), "f.txt")
    assert not Path("result").exists()


def test_broken_pictures_are_named_and_skipped_by_choice(cli: Cli) -> None:
    picture_folder(Path("photos"), "red", "blue")
    whole = Path("photos/red/0.png").read_bytes()
    Path("photos/red/1.png").write_bytes(whole[: len(whole) // 2])
    assert_refused(cli("features", "photos", "--out", "f.npz"), "photos/red/1.png")
    assert not Path("f.npz").exists()
    outcome = cli("features", "photos", "--skip-broken", "--out", "f.npz")
    assert outcome.status == 0 and "photos/red/1.png" in outcome.output
    with np.load("f.npz") as archive:
        assert len(archive["features"]) == 3


def test_pocket_clip_refuses_classes_it_never_saw(cli: Cli) -> None:
    picture_folder(Path("pets"), "dachshund", "siamese")
    outcome = cli("compare", "pets", "--out", "result")
    assert_refused(outcome, "dachshund", "--backbone ViT-B-32 --pretrained", "--allow-unknown-classes")


def test_outputs_that_cannot_be_written_are_refused_before_work(cli: Cli) -> None:
    feature_task(Path("pets.npz"))
    Path("file").write_text("mine")
    for command in ("compare", "fit"):
        assert_refused(cli(command, "pets.npz", "--out", "file"), "file")
        assert_refused(cli(command, "pets.npz", "--out", "file/inside"), "file")
    assert Path("file").read_text() == "mine"


def test_full_covariance_says_its_size_before_allocating(cli: Cli) -> None:
    classes, dimension = 1000, 512
    features = np.eye(classes, dimension) + 1.0
    np.savez(
        "large.npz",
        support_features=features,
        support_labels=np.arange(classes),
        query_features=features,
        query_labels=np.arange(classes),
    )
    options = ("--engines", "ekf", "--covariance", "full", "--prior-variance", "0.01", "--out", "result")
    assert_refused(cli("compare", "large.npz", *options), "full", "GiB", "class_block")


def test_faults_are_one_line_unless_asked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("bayes_clip.model.list_models", fail)
    outcome = cli("models")
    assert outcome.status == 1 and outcome.errors.count("\n") == 1
    assert "two lines" in outcome.errors and "--debug" in outcome.errors


def test_debug_shows_where(cli: Cli) -> None:
    with pytest.raises(bayes_clip.UserError):
        main(["compare", "digitz", "--debug"])


def test_interrupted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bayes_clip.model.list_models", stop)
    assert cli("models") == Outcome(130, "", "error: stopped\n")
