"""Labels in pieces are labels at once; classes come and go; what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from small_problems import assert_near, tiny_task
from streams import TASK, assert_equal, piece, steady, tensors_of

from bayes_clip.class_changes import add_classes, match_classes, remove_class
from bayes_clip.data.task import make_task
from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.inference import ENGINE_COVARIANCES
from bayes_clip.inference.rules import DEFAULT_RULE, OTHER_RULES, RULES
from bayes_clip.posterior import Posterior
from bayes_clip.settings import FitSettings
from bayes_clip.storage.folder import load_posterior
from bayes_clip.storage.packing import fields_of
from bayes_clip.streaming import Pace, Update, update

NAMES = TASK.class_names
OWN_COVARIANCE = {"kalman_clip": "diagonal", "natural_gradient": "diagonal_variational"}
SWEPT = ("class_block", "full")  # covariances that a batch can be taken out of again


def once_and_swept(covariances: tuple[str, ...]) -> list[tuple[str, int]]:
    """Each covariance with one pass, and with two those that keep enough for it."""
    return [(name, passes) for name in covariances for passes in (1, 2) if passes == 1 or name in SWEPT]


def fitted(last: int, asked: FitSettings) -> Posterior:
    return fit(piece(0, last, partial=False), asked).posterior


def through_a_file(posterior: Posterior, folder: Path) -> Posterior:
    posterior.save(folder)
    return load_posterior(folder)


def named(names: tuple[str, ...], rows: range, **changes: Any) -> Any:
    """Rows of TASK under other class names; label k of a row is its place in NAMES."""
    part = piece(rows.start, rows.stop)
    places = torch.tensor([names.index(NAMES[label]) for label in part.support_labels.tolist()])
    return replace(part, class_names=names, support_labels=places, **changes)


@pytest.mark.parametrize(
    ("covariance", "rule", "decay"),
    [
        *((covariance, rule, 1.0) for covariance in ENGINE_COVARIANCES["ekf"] for rule in RULES),
        *((covariance, "plain", 0.9) for covariance in ENGINE_COVARIANCES["ekf"]),
        *(("class_block", rule, 0.9) for rule in RULES if rule != "plain"),
        *((OWN_COVARIANCE[rule], rule, 0.9) for rule in OTHER_RULES),
    ],
)
def test_pieces_through_files_are_bit_for_bit_the_whole(
    covariance: str, rule: str, decay: float, tmp_path: Path
) -> None:
    """Batches of four; pieces of 8, 4 and 12 rows. With decay, time passes at the seams as well."""
    asked = steady(covariance=covariance, rule=rule, decay=decay)
    whole = fit(TASK, asked)
    posterior = through_a_file(fitted(8, asked), tmp_path / "first")
    posterior = through_a_file(update(posterior, piece(8, 12)).posterior, tmp_path / "second")
    last = update(posterior, piece(12, 24))
    assert_equal(through_a_file(last.posterior, tmp_path / "third"), whole.posterior)
    assert last.posterior.stream.steps == len(whole.steps) == 6
    for mine, its in zip(last.steps, whole.steps[3:], strict=True):
        assert torch.equal(mine.prequential_score, its.prequential_score)
    assert last.posterior.source.support_rows == 24 and last.posterior.stream.updates == 2


@given(seams=some.sets(some.integers(1, 5)), dtype=some.sampled_from(["float32", "float64"]))
@settings(max_examples=5, deadline=None)
def test_any_seams_on_batch_boundaries_will_do(seams: set[int], dtype: str) -> None:
    asked = steady(dtype=dtype, decay=0.95)
    ends = [4 * seam for seam in sorted(seams)] + [24]
    posterior = fitted(ends[0], asked)
    for first, last in pairwise(ends):
        posterior = update(posterior, piece(first, last)).posterior
    assert_equal(posterior, fitted(24, asked))


def test_one_label_at_a_time_keeps_nothing_and_costs_the_same_every_time(tmp_path: Path) -> None:
    """What an update reads is the state, whose size does not grow with the labels behind it."""
    posterior, sizes = fitted(3, steady(batch_size=1)), set()
    for row in range(3, 9):
        posterior = update(posterior, piece(row, row + 1)).posterior
        assert posterior.stream.kept is None
        sizes.add(sum(tensor.nbytes for tensor in tensors_of(posterior).values()))
    assert len(sizes) == 1
    assert_equal(posterior, fitted(9, steady(batch_size=1)))


@pytest.mark.parametrize("covariance", SWEPT)
def test_sweeps_over_old_and_new_labels_converge_to_those_over_all(covariance: str, tmp_path: Path) -> None:
    asked = steady(covariance=covariance, batch_size=4, passes=9, dtype="float64", rule="iterated")
    posterior = through_a_file(fitted(12, asked), tmp_path)
    kept = posterior.stream.kept
    assert kept.inputs.shape == (12, 5) and posterior.stream.steps == 3
    assert kept.sizes == (12,) and len(kept.sites) == 1  # joined for the sweeps
    posterior = update(posterior, piece(12, 24)).posterior
    whole = fitted(24, asked)
    assert posterior.stream.steps == 6 and posterior.stream.kept.sizes == (24,)
    for name, tensor in fields_of(whole.weights)[0].items():
        assert_near(getattr(posterior.weights, name), tensor, 1e-6)


def test_sweeping_is_better_than_one_pass_where_labels_come_class_by_class() -> None:
    """The second half of the labels, one at a time, shifts the first half's sites too."""
    asked = steady(batch_size=1, rule=DEFAULT_RULE, passes=2)
    posterior = fitted(12, asked)
    before = posterior.stream.kept.sites[0].linear.clone()
    after = update(posterior, piece(12, 24)).posterior.stream.kept.sites[0].linear
    assert not torch.equal(before, after)


def test_one_pass_over_new_labels_leaves_the_sites_of_old_ones() -> None:
    posterior = fitted(12, steady(passes=2))
    after = update(posterior, piece(12, 24), pace=Pace(passes=1)).posterior
    old, new = posterior.stream.kept, after.stream.kept
    assert new.sizes == (12, 4, 4, 4) and after.source.settings.passes == 2
    for mine, its in zip(old.sites, new.sites, strict=False):
        assert torch.equal(mine.matrix, its.matrix) and torch.equal(mine.linear, its.linear)


def test_what_it_starts_from_does_not_change() -> None:
    posterior = fitted(12, steady(passes=2))
    before = {name: tensor.clone() for name, tensor in tensors_of(posterior).items()}
    text = torch.cat([TASK.text_features, torch.eye(5)[:1]])
    more = replace(piece(12, 24), class_names=(*NAMES, "new"), text_features=text)
    result = update(posterior, more)
    assert isinstance(result, Update) and "12 labels, classes added: new" in repr(result)
    for name, tensor in tensors_of(posterior).items():
        assert torch.equal(tensor, before[name])
    assert posterior.stream.updates == 0


def test_labels_are_matched_by_name() -> None:
    shuffled = (NAMES[2], NAMES[0], NAMES[1])
    names = ("ant", "bee", "cat")
    known = fit(replace(piece(0, 8, partial=False), class_names=names), steady()).posterior
    plain = update(known, replace(piece(8, 24), class_names=names)).posterior
    part = named(shuffled, range(8, 24))
    turned = replace(part, class_names=tuple(names[NAMES.index(name)] for name in shuffled))
    turned = replace(turned, text_features=turned.text_features[[2, 0, 1]])
    assert_equal(update(known, turned).posterior, plain)


def test_labels_of_classes_without_names_are_matched_by_number_and_said_so() -> None:
    names = ("ant", "bee", "cat")
    known = fit(replace(piece(0, 8, partial=False), class_names=names), steady()).posterior
    result = update(known, piece(8, 24))
    assert "classes are matched by their numbers, because one side knows no names" in result.notes
    assert_equal(result.posterior, fitted(24, steady()))
    with pytest.raises(UserError, match="6 classes where the posterior has 3, and one side knows no names"):
        update(known, make_task("more", torch.eye(5)[:1], [5], partial=True))


def test_shared_names_are_names_even_where_they_are_numbers() -> None:
    """After a class has gone, "class 2" is no longer the third."""
    posterior = update(fitted(12, steady()), remove=["class 1"]).posterior
    lone = make_task("lone", torch.eye(5)[:1], [2], partial=True)
    places = match_classes(posterior.class_names, lone).places
    assert places == (0, -1, 1)
    assert match_classes(("ant", "class 1"), lone).places == (-1, 1, 2)


def test_one_row_of_one_class_is_a_task_for_update_alone() -> None:
    lone = make_task("lone", TASK.support_features[9:10], [0], class_names=[NAMES[0]], partial=True)
    assert lone.query_features.shape == (0, 5) and lone.is_partial
    result = update(fitted(8, steady()), lone)
    assert result.posterior.source.support_rows == 9 and result.added == ()
    with pytest.raises(UserError, match="a partial task, good only to update"):
        fit(lone, steady())


@pytest.mark.parametrize(("covariance", "passes"), once_and_swept(ENGINE_COVARIANCES["ekf"]))
def test_a_new_class_enters_at_its_prior_without_touching_the_others(covariance: str, passes: int) -> None:
    """Two classes more, one of them with rows; before these rows nothing else moves."""
    asked = steady(covariance=covariance, passes=passes)
    text = torch.nn.functional.normalize(torch.ones(2, 5), dim=-1)
    whole = torch.cat([TASK.text_features, text])
    more = replace(piece(8, 10), class_names=(*NAMES, "dog", "eel"), text_features=whole)
    posterior = fitted(8, asked)
    if covariance == "kronecker":
        with pytest.raises(UserError, match="classes cannot come or go with this covariance"):
            update(posterior, more)
        return
    wider = add_classes(posterior, ["dog", "eel"], text)
    assert wider.class_names == (*NAMES, "dog", "eel")
    assert torch.equal(wider.weights.mean[:3], posterior.weights.mean)
    assert torch.equal(wider.weights.mean[3:], text) and torch.equal(wider.program.text_features, whole)
    design = 20.0 * TASK.query_features
    before, after = posterior.weights.logit_moments(design), wider.weights.logit_moments(design)
    for mine, its in zip(before, after, strict=True):
        assert_near(its[:, :3], mine, 1e-5)
    assert_near(after[1][:, 3:], 0.02 * design.square().sum(-1, keepdim=True).expand(-1, 2), 1e-4)
    learned = update(posterior, more)
    assert learned.added == ("dog", "eel") and "class 'dog' is new" in learned.notes[0]
    assert learned.posterior.predict(TASK.query_features).probabilities.shape == (60, 5)
    again = update(learned.posterior, replace(more, support_labels=torch.tensor([3, 4])))
    assert again.added == () and not torch.equal(again.posterior.weights.mean[3:], text)


@pytest.mark.parametrize("covariance", ["class_block", "diagonal", "full"])
def test_the_tensors_of_the_others_are_the_same_bits_around_a_class_that_came(covariance: str) -> None:
    """What the file held of the other classes is found again in the wider one, and after removal alone."""
    posterior = fitted(8, steady(covariance=covariance, dtype="float64", passes=1))
    wider = add_classes(posterior, ["dog"], torch.eye(5)[:1])
    assert_equal(remove_class(wider, "dog"), posterior)
    for name, tensor in fields_of(posterior.weights)[0].items():
        held = getattr(wider.weights, name)
        assert torch.equal(held[tuple(slice(size) for size in tensor.shape)], tensor)


@pytest.mark.parametrize("covariance", SWEPT)
def test_sweeping_old_labels_lets_a_new_class_learn_from_them(covariance: str) -> None:
    """Sweeps over rows that came before a class give what a fit that knew the class from the start gives."""
    asked = steady(covariance=covariance, passes=9, batch_size=4, dtype="float64", rule="iterated")
    text = torch.cat([TASK.text_features, torch.nn.functional.normalize(torch.ones(1, 5), dim=-1)])
    names = (*NAMES, "dog")
    whole = replace(TASK, class_names=names, text_features=text)
    late = update(fitted(12, asked), replace(piece(12, 24), class_names=names, text_features=text)).posterior
    assert late.stream.kept.sites[0].linear.shape[1] == 4
    assert_near(late.weights.mean, fit(whole, asked).posterior.weights.mean, 1e-6)


@pytest.mark.parametrize(
    ("covariance", "passes"),
    once_and_swept(("class_block", "diagonal", "full", "diagonal_variational")),
)
def test_a_removed_class_goes_and_the_others_stay_bit_for_bit(covariance: str, passes: int) -> None:
    posterior = fitted(12, steady(covariance=covariance, passes=passes, batch_size=1))
    result = update(posterior, remove=[NAMES[1]])
    left = result.posterior
    assert result.removed == (NAMES[1],) and left.class_names == (NAMES[0], NAMES[2])
    assert torch.equal(left.weights.mean, posterior.weights.mean[[0, 2]])
    if covariance == "full":
        blocks = posterior.weights.covariance.reshape(3, 5, 3, 5)
        assert torch.equal(left.weights.covariance.reshape(2, 5, 2, 5), blocks[[0, 2]][:, :, [0, 2]])
    else:
        (name,) = fields_of(left.weights)[0].keys() - {"mean"}
        assert torch.equal(getattr(left.weights, name), getattr(posterior.weights, name)[[0, 2]])
    if passes > 1:  # a batch with one of its labels is not swept again
        kept = [] if len(posterior.stream.kept.sites) < 12 else [0, 1] * 4
        assert left.stream.kept.labels.tolist() == kept
    more = update(left, replace(named((NAMES[0], NAMES[2], NAMES[1]), range(12, 13)), text_features=None))
    assert more.posterior.source.support_rows == 13


def test_a_removed_class_may_come_back_as_a_new_one() -> None:
    posterior = update(fitted(12, steady()), remove=[NAMES[1]]).posterior
    back = update(posterior, piece(12, 24))
    assert back.added == (NAMES[1],) and back.posterior.class_names == (NAMES[0], NAMES[2], NAMES[1])
    at_once = update(fitted(12, steady()), piece(12, 13), remove=[NAMES[1]])
    assert at_once.posterior.class_names == (NAMES[0], NAMES[2])  # the task names it and has no row of it


def test_without_text_a_new_class_begins_at_zero() -> None:
    bare = replace(TASK, text_features=None)
    posterior = fit(piece(0, 12, bare, partial=False), steady()).posterior
    more = replace(piece(12, 14, bare), class_names=(*NAMES, "class 3"), support_labels=torch.tensor([3, 0]))
    result = update(posterior, more)
    assert torch.equal(result.posterior.stream.prior_mean[3], torch.zeros(5)) and result.added == ("class 3",)


class Encoder(SimpleNamespace):
    """A backbone that knows text features of class names."""

    def text_features(self, names: Any, templates: Any = None) -> torch.Tensor:
        return torch.eye(5)[: len(names)]

    def unknown_words(self, prompts: Any) -> list[str]:
        return []


def test_text_of_a_new_class_may_come_from_the_backbone() -> None:
    posterior = fitted(12, steady())
    bare = replace(piece(12, 14), class_names=(NAMES[0], "dog"), text_features=None)
    bare = replace(bare, support_labels=torch.tensor([0, 1]))
    with pytest.raises(UserError, match="class 'dog' is new and has no text feature"):
        update(posterior, bare)
    result = update(posterior, bare, backbone=Encoder(name="eye", fingerprint="aaaa"))
    assert torch.equal(result.posterior.program.text_features[3], torch.eye(5)[0])
    posterior.source = replace(posterior.source, backbone="bbbb")
    with pytest.raises(UserError, match=r"--backbone eye: its fingerprint is aaaa.*fitted with bbbb"):
        update(posterior, bare, backbone=Encoder(name="eye", fingerprint="aaaa"))


def test_the_pace_is_the_fits_unless_another_is_given() -> None:
    posterior = fitted(12, steady())
    assert len(update(posterior, piece(12, 24)).steps) == 3
    assert len(update(posterior, piece(12, 24), pace=Pace(batch_size=1)).steps) == 12
    assert len(update(posterior, piece(12, 24), pace=Pace(order="balanced", passes=2)).steps) == 1


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "another backbone": (replace(piece(12, 24), backbone="bbbb"), {}, "backbone bbbb.*fitted with aaaa"),
    "another dimension": (tiny_task(features=4), {}, "features of 4 columns where the posterior takes 5"),
    "a name of two classes": (
        replace(piece(12, 24), class_names=("ant", "ant", "bee")),
        {},
        "2 classes are called 'ant'",
    ),
    "an unknown class to remove": (None, {"remove": ["class 7"]}, "--remove-class class 7: no such class"),
    "too many classes to remove": (None, {"remove": NAMES[:2]}, "only two classes; at least two must stay"),
    "rows of a removed class": (piece(12, 24), {"remove": NAMES[:1]}, "holds 4 rows of it; drop one"),
    "nothing": (None, {}, "nothing to update"),
    "an order that is none": (piece(12, 24), {"pace": Pace(order="sorted")}, "--order sorted"),
    "passes of a drift": (piece(12, 24), {"pace": Pace(passes=2)}, "a drifting stream is seen once"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(what: str) -> None:
    task, options, message = REFUSED[what]
    first = replace(piece(0, 12, partial=False), backbone="aaaa")
    if what == "a name of two classes":
        first = replace(first, class_names=("ant", "bee", "cat"))
    posterior = fit(first, steady(decay=0.9)).posterior
    with pytest.raises(UserError, match=message) as refusal:
        update(posterior, task, **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("engine", ["map", "laplace"])
def test_other_engines_do_not_stream(engine: str) -> None:
    posterior = fit(piece(0, 12, partial=False), steady(engine=engine, rule=None)).posterior
    with pytest.raises(UserError, match=f"{engine} does not stream; fit again with --engine ekf"):
        update(posterior, piece(12, 24))


def test_a_posterior_without_a_stream_and_weights_that_broke_down_are_refused() -> None:
    posterior = fitted(12, steady())
    old = Posterior(posterior.program, posterior.weights, posterior.source)
    with pytest.raises(UserError, match="saved by an earlier version"):
        update(old, piece(12, 24))
    posterior.weights.mean[0, 0] = float("inf")
    with pytest.raises(UserError, match="broke down"):
        update(posterior, piece(12, 24))


def test_another_logit_scale_is_said_not_to_be_used() -> None:
    result = update(fitted(12, steady()), replace(piece(12, 24), logit_scale=7.0))
    assert result.notes == ("tiny: its logit_scale 7 is not used; the posterior's is 20",)


def test_labels_of_one_class_alone_are_warned_of_unless_all_are_swept() -> None:
    alone = piece(12, 24)
    alone = alone.with_support(alone.support_labels == 1)
    said = [note for note in update(fitted(12, steady()), alone).notes if "all labels are of" in note]
    assert len(said) == 1 and NAMES[1] in said[0] and "--passes 2" in said[0]
    swept = update(fitted(12, replace(steady(), passes=2)), alone)
    assert not any("all labels are of" in note for note in swept.notes)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
def test_a_program_that_is_no_linear_head_streams_too_but_has_its_classes(
    covariance: str, tmp_path: Path
) -> None:
    program = tmp_path / "bent.py"
    program.write_text(
        "import torch\nfrom pyro.distributions import Normal\nfrom bayes_clip.model import AdapterModel\n\n\n"
        "class Bent(AdapterModel):\n"
        "    def prior(self):\n"
        "        zero = torch.zeros_like(self.text_features)\n"
        "        spread = self.prior_variance**0.5\n"
        '        return {"change": Normal(zero, spread).to_event(2)}\n\n'
        "    def logits(self, weights, inputs):\n"
        '        return self.logit_scale * inputs @ (self.text_features + torch.tanh(weights["change"])).mT\n'
    )
    asked = steady(model=str(program), covariance=covariance, decay=0.95, rule="plain")
    posterior = through_a_file(fitted(8, asked), tmp_path / "first")
    assert posterior.weights.mean.shape == (15,)
    last = update(posterior, piece(8, 24)).posterior
    assert_equal(last, fitted(24, asked))
    with pytest.raises(UserError, match="Bent: to add or remove classes needs a linear head"):
        update(last, remove=[NAMES[0]])


def test_a_prior_that_changes_with_the_classes_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "mean_text.py"
    program.write_text(
        "from pyro.distributions import Normal\nfrom bayes_clip.model import AdapterModel\n\n\n"
        "class MeanText(AdapterModel):\n"
        "    def prior(self):\n"
        "        centre = self.text_features - self.text_features.mean(0)\n"
        '        return {"class_weights": Normal(centre, self.prior_variance**0.5).to_event(2)}\n\n'
        "    def logits(self, weights, inputs):\n"
        '        return self.logit_scale * inputs @ weights["class_weights"].mT\n'
    )
    posterior = fitted(12, steady(model=str(program)))
    assert update(posterior, piece(12, 24)).rows == 12
    with pytest.raises(UserError, match="MeanText: the prior of its other classes changes"):
        update(posterior, remove=[NAMES[0]])
