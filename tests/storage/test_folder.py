from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_problems import assert_near, tiny_task

from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.gaussian import FAMILIES
from bayes_clip.inference import mcmc
from bayes_clip.model import find_model
from bayes_clip.posterior import Posterior
from bayes_clip.resources import models_folder
from bayes_clip.settings import FitSettings
from bayes_clip.storage import folder as storage
from bayes_clip.storage.folder import JSON_NAME, load_posterior, save_posterior

TASK = tiny_task()
ARMS = {
    "ClassBlock": FitSettings(engine="ekf"),
    "Diagonal": FitSettings(engine="ekf", covariance="diagonal"),
    "Full": FitSettings(engine="laplace", covariance="full", dtype="float64"),
    "Point": FitSettings(engine="map"),
    "Draws": FitSettings(engine="nuts", prior_variance=0.01),
    "LowRank": FitSettings(engine="vi", covariance="low_rank", prior_variance=0.01, predictive="plug_in"),
}


def fitted(kind: str) -> Posterior:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mcmc, "DRAWS", 10)
        patch.setattr(mcmc, "WARMUP", 10)
        return fit(TASK, ARMS[kind]).posterior


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "posterior"
    fitted("Point").save(folder)
    return folder


def test_every_kind_of_weights_is_covered() -> None:
    """Those of the filter's own families are streamed in tests/test_streaming.py."""
    own = {kind.__name__ for kind in FAMILIES.values()}
    assert storage.KINDS.keys() == ARMS.keys() | own
    assert len(storage.KINDS) == len({*storage.KINDS.values()})  # names are not shared


@pytest.mark.parametrize("kind", ARMS)
def test_what_is_loaded_is_what_was_saved_bit_for_bit(kind: str, tmp_path: Path) -> None:
    before = fitted(kind)
    assert type(before.weights).__name__ == kind
    save_posterior(before, tmp_path / "new" / "folder")
    after = load_posterior(tmp_path / "new" / "folder")
    assert after.source == before.source and after.class_names == before.class_names
    assert after.program.context.logit_scale == TASK.logit_scale
    assert after.program.prior_variance == before.program.prior_variance
    for name, value in vars(before.weights).items():
        loaded = getattr(after.weights, name)
        assert loaded.dtype == value.dtype and torch.equal(loaded, value)
    one, other = before.predict(TASK.query_features), after.predict(TASK.query_features)
    for name, value in vars(one).items():  # matrices may lie otherwise in memory: products round otherwise
        assert_near(getattr(other, name), value, 1e-5)


def test_the_json_says_versions_and_hash_and_nothing_is_pickled(saved: Path) -> None:
    described = json.loads((saved / JSON_NAME).read_text())
    assert {"bayes_clip", "torch", "pyro-ppl"} <= described["versions"].keys()
    assert len(described["sha256"]) == 64
    assert sorted(path.suffix for path in saved.iterdir()) == [".json", ".safetensors"]


def tensors_of(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def edit(folder: Path, **changes: object) -> None:
    path = folder / JSON_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip_a_bit(folder: Path) -> None:
    content = bytearray(tensors_of(folder).read_bytes())
    content[-1] ^= 1
    tensors_of(folder).write_bytes(content)


def drop_source(folder: Path) -> None:
    path = folder / JSON_NAME
    described = json.loads(path.read_text())
    del described["source"]["task"]
    path.write_text(json.dumps(described))


SPOILED = {
    "truncated": (lambda f: tensors_of(f).write_bytes(tensors_of(f).read_bytes()[:-9]), "was truncated"),
    "tampered": (flip_a_bit, "was truncated or changed"),
    "tensors missing": (lambda f: tensors_of(f).unlink(), "is missing; fit again"),
    "newer format": (lambda f: edit(f, format=99), "format 99 is newer than 2.*update bayes_clip"),
    "no json": (lambda f: (f / JSON_NAME).unlink(), "no posterior there"),
    "json cut": (lambda f: (f / JSON_NAME).write_text('{"format": 1,'), "is no JSON"),
    "json a list": (lambda f: (f / JSON_NAME).write_text("[1]"), "does not describe a posterior"),
    "json binary": (lambda f: (f / JSON_NAME).write_bytes(b"\xff\xfe\x00"), "is no JSON"),
    "format of no number": (lambda f: edit(f, format="new"), "does not describe a posterior"),
    "stream incomplete": (lambda f: edit(f, stream={"steps": 1}), "was changed or is incomplete"),
    "stream no mapping": (lambda f: edit(f, stream=3), "was changed or is incomplete"),
    "numbers too many": (lambda f: edit(f, numbers={"rank": 3}), "was changed or is incomplete"),
    "unknown kind": (lambda f: edit(f, weights="Cubic"), "was changed or is incomplete"),
    "source incomplete": (drop_source, "was changed or is incomplete"),
    "source no mapping": (lambda f: edit(f, source=3), "was changed or is incomplete"),
    "names missing": (lambda f: edit(f, class_names=None), "was changed or is incomplete"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_folder_is_refused_in_one_line(how: str, saved: Path) -> None:
    spoil, message = SPOILED[how]
    spoil(saved)
    with pytest.raises(UserError, match=message) as refusal:
        load_posterior(saved)
    assert "\n" not in str(refusal.value) and str(saved) in str(refusal.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no posterior there"):
        load_posterior(tmp_path / "nowhere")


def test_saving_over_an_older_posterior_replaces_it(saved: Path) -> None:
    newer = fitted("Diagonal")
    newer.save(saved)
    assert type(load_posterior(saved).weights).__name__ == "Diagonal"
    assert len(list(saved.iterdir())) == 2


def test_a_folder_with_something_else_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        fitted("Point").save(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        fitted("Point").save(tmp_path / "notes.txt")
    assert files(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("write_fails_at", [1, 2])
def test_nothing_is_half_written_when_writing_fails(
    write_fails_at: int, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at the tensors or at the JSON: the older posterior still loads, no partial file."""
    before = files(saved)
    real, calls = Path.write_bytes, []

    def full_disk(path: Path, content: bytes) -> int:
        calls.append(path)
        if len(calls) == write_fails_at:
            real(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return real(path, content)

    newer = fitted("Diagonal")
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(UserError, match=r"cannot write .No space left on device."):
        newer.save(saved)
    monkeypatch.undo()
    after = files(saved)
    assert before.items() <= after.items()
    assert not [name for name in after if name.startswith(".")]
    assert type(load_posterior(saved).weights).__name__ == "Point"


def test_a_program_of_ones_own_is_found_from_any_folder_and_must_not_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mine.py"
    program.write_text((models_folder() / "linear_probe.py").read_text())
    monkeypatch.chdir(tmp_path)
    fit(TASK, FitSettings(model="mine.py", engine="map")).posterior.save("posterior")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_posterior("../posterior").class_names == TASK.class_names
    program.write_text(program.read_text() + "\n# another\n")
    with pytest.raises(UserError, match=r"mine\.py, which is gone or changed since; fit again"):
        load_posterior("../posterior")


def test_what_a_killed_process_left_is_no_hindrance_and_is_cleared_away(tmp_path: Path) -> None:
    left = (".posterior.json.abc.part", ".posterior-12.safetensors.x.part", "posterior-12.safetensors")
    for name in left:
        (tmp_path / name).write_bytes(b"half")
    fitted("Point").save(tmp_path)
    assert not {*left} & files(tmp_path).keys() and load_posterior(tmp_path).is_point


def test_the_first_format_is_still_read(saved: Path) -> None:
    """Format 1 said nothing of streams, numbers, what was held out and which run made it."""
    path = saved / JSON_NAME
    described = json.loads(path.read_text())
    added = ("stream", "numbers", "held_out", "made", "seal")
    first = {key: value for key, value in described.items() if key not in added}
    path.write_text(json.dumps({**first, "format": 1}))
    assert load_posterior(saved).stream is None
    assert storage.made_by(saved) == storage.Made()


@pytest.mark.parametrize(
    "change", [{"class_names": ["a", "b", "z"]}, {"logit_scale": 3.0}, {"has_text": False}]
)
def test_a_json_changed_by_hand_is_refused(saved: Path, change: dict[str, object]) -> None:
    """Even where what it says could be true."""
    load_posterior(saved)
    path = saved / JSON_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=r"posterior\.json: was changed by hand; fit again"):
        load_posterior(saved)


def test_a_reader_that_meets_a_writer_reads_again(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a reader's look at the JSON and at the tensors, another posterior takes the place."""
    newer, real, looks = fitted("Diagonal"), storage._description, []

    def description(target: Path) -> dict[str, object]:
        described = real(target)
        looks.append(described)
        if len(looks) == 1:
            storage.write_posterior(newer, target)
        return described

    monkeypatch.setattr(storage, "_description", description)
    assert type(load_posterior(saved).weights).__name__ == "Diagonal"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_posterior_fitted_on_a_gpu_loads_on_the_cpu(tmp_path: Path) -> None:
    before = fit(TASK, FitSettings(engine="ekf", device="cuda", passes=2)).posterior
    before.save(tmp_path)
    after = load_posterior(tmp_path)
    assert after.weights.mean.device.type == "cpu" and after.stream.prior_mean.device.type == "cpu"
    assert torch.equal(after.weights.covariance, before.weights.covariance.cpu())
    assert torch.equal(after.stream.kept.sites[0].matrix, before.stream.kept.sites[0].matrix.cpu())


def test_a_program_given_in_python_alone_cannot_be_saved(tmp_path: Path) -> None:
    class Own(find_model("linear_probe")):
        """The linear probe, but not from a file."""

    fitted = fit(tiny_task(), FitSettings(engine="map", prior_variance=0.01), program=Own)
    with pytest.raises(UserError, match="Own: a program given in Python alone cannot be found again"):
        fitted.posterior.save(tmp_path / "posterior")
    assert not (tmp_path / "posterior" / "posterior.json").exists()
