from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

from bayes_clip.data.task import Pool, Task, drawn_rows, few_shot, make_task, refuse_partial
from bayes_clip.errors import UserError


def raw_arrays(**changed: Any) -> dict[str, Any]:
    """A sound task of three classes in four dimensions, with some arrays changed."""
    random = np.random.default_rng(0)
    sound = {
        "support_features": random.normal(size=(6, 4)),
        "support_labels": np.array([0, 0, 1, 1, 2, 2]),
        "query_features": random.normal(size=(3, 4)),
        "query_labels": np.array([0, 1, 2]),
        "text_features": random.normal(size=(3, 4)),
        "class_names": ["cat", "dog", "owl"],
    }
    return sound | changed


def with_value(array: str, row: int, value: float) -> dict[str, Any]:
    changed = np.array(raw_arrays()[array], dtype=float)
    changed[row] = value
    return raw_arrays(**{array: changed})


def task_of_counts(counts: list[int], seed: int = 0) -> Task:
    """A task with the given number of support rows per class, in random order, without text."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    features = random.normal(size=(len(labels), 5))
    return make_task("counts", features, labels, features[:1], labels[:1])


class_counts = st.lists(st.integers(1, 6), min_size=2, max_size=5)


def test_a_sound_task_says_what_it_is() -> None:
    task = make_task("pets", **raw_arrays(ood_features=np.ones((2, 4))))
    assert (task.num_classes, task.num_features) == (3, 4)
    assert task.class_names == ("cat", "dog", "owl")
    assert task.logit_scale == 100.0
    assert task.notes == ()
    assert repr(task) == "Task('pets': 3 classes, 4 features, with text, support=6, query=3, ood=2)"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_float_type_becomes_unit_rows_in_float32(dtype: type) -> None:
    features = raw_arrays()["support_features"].astype(dtype)
    task = make_task("pets", **raw_arrays(support_features=features))
    assert task.support_features.dtype == torch.float32
    lengths = task.support_features.double().norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-6)


@given(
    numpy_arrays(np.float64, (6, 4), elements=st.floats(-1e3, 1e3)).filter(
        lambda features: (np.abs(features).max(axis=1) > 1e-3).all()
    )
)
def test_unit_rows_times_norms_are_the_features(features: np.ndarray) -> None:
    task = make_task("pets", **raw_arrays(support_features=features))
    assert task.support_norms is not None
    restored = task.support_features.double() * task.support_norms.double()[:, None]
    scale = np.abs(features).max(axis=1, keepdims=True)
    np.testing.assert_allclose(restored.numpy() / scale, features / scale, rtol=0, atol=1e-6)


def test_a_logit_scale_of_one_element_is_taken() -> None:
    assert make_task("pets", **raw_arrays(logit_scale=np.array([14.5]))).logit_scale == 14.5


def test_classes_without_names_are_numbered() -> None:
    task = make_task("pets", **raw_arrays(class_names=None))
    assert task.class_names == ("class 0", "class 1", "class 2")


def test_a_class_known_by_its_text_alone_is_noted() -> None:
    task = make_task("pets", **raw_arrays(support_labels=[0, 0, 1, 1, 1, 0]))
    assert task.notes == ("1 of 3 classes have no support row ('owl'): known by their text alone",)


def test_names_that_repeat_are_noted() -> None:
    task = make_task("pets", **raw_arrays(class_names=["cat", "dog", "cat"]))
    assert task.notes == ("class names that stand for more than one class: 'cat'",)


REFUSALS = {
    "NaN": (with_value("support_features", 2, np.nan), "support_features row 2 holds NaN"),
    "infinity": (with_value("query_features", 1, np.inf), "query_features row 1 holds NaN or infinity"),
    "zero row": (with_value("support_features", 5, 0.0), "support_features row 5 is all zeros"),
    "zero text": (with_value("text_features", 0, 0.0), "text_features row 0 is all zeros"),
    "tiny row": (with_value("query_features", 0, 1e-60), "query_features row 0 has a length"),
    "bad ood": (raw_arrays(ood_features=np.full((2, 4), np.nan)), r"ood_features row 0 \(and 1 more\)"),
    "label too large": (raw_arrays(support_labels=[0, 0, 1, 1, 2, 3]), r"support_labels row 5 \(3\).*0 to 2"),
    "query too large": (raw_arrays(query_labels=[0, 1, 7]), r"query_labels row 2 \(7\).*0 to 2"),
    "negative label": (raw_arrays(support_labels=[0, -1, 1, 1, 2, 2]), r"support_labels row 1 \(-1\)"),
    "fraction": (raw_arrays(query_labels=[0.0, 1.5, 2.0]), r"query_labels row 1 \(1.5\) is not an integer"),
    "float labels": (raw_arrays(query_labels=[0.0, 1.0, 2.0]), "query_labels has type float64"),
    "boolean labels": (raw_arrays(query_labels=[True, False, True]), "query_labels has type bool"),
    "words as labels": (raw_arrays(query_labels=["a", "b", "c"]), "query_labels has type"),
    "integer features": (raw_arrays(query_features=np.ones((3, 4), int)), "query_features has type int64"),
    "complex features": (raw_arrays(query_features=np.ones((3, 4), complex)), "query_features has type"),
    "query dimension": (raw_arrays(query_features=np.ones((3, 5))), "query_features has 5 columns.*have 4"),
    "text dimension": (raw_arrays(text_features=np.ones((3, 5))), "text_features has 5 columns"),
    "ood dimension": (raw_arrays(ood_features=np.ones((3, 5))), "ood_features has 5 columns"),
    "ragged": (
        raw_arrays(query_features=[[1.0], [1.0, 2.0]]),
        "query_features has rows of different lengths",
    ),
    "one row as a vector": (raw_arrays(query_features=np.ones(4)), "query_features has shape"),
    "no support": (
        raw_arrays(support_features=np.ones((0, 4)), support_labels=[]),
        "support_features is empty",
    ),
    "no query": (raw_arrays(query_features=np.ones((0, 4)), query_labels=[]), "query_features is empty"),
    "no columns": (raw_arrays(support_features=np.ones((6, 0))), "support_features is empty"),
    "labels for fewer": (raw_arrays(support_labels=[0, 1, 2]), "support_labels has 3 entries for 6"),
    "label matrix": (raw_arrays(support_labels=np.zeros((6, 3), int)), "support_labels has shape"),
    "text count": (raw_arrays(text_features=np.ones((2, 4))), "text_features has 2 rows for 3 class_names"),
    "one class": (
        raw_arrays(support_labels=[0] * 6, query_labels=[0] * 3, class_names=None, text_features=None),
        "one class only",
    ),
    "one class in support": (
        raw_arrays(support_labels=[1] * 6),
        r"support_labels holds one class only \('dog'\)",
    ),
    "unseen query class": (
        raw_arrays(support_labels=[0, 0, 1, 1, 1, 0], text_features=None),
        r"query_labels row 2 is class 2 \('owl'\), which has no support row and no text",
    ),
    "unseen class": (
        raw_arrays(support_labels=[0, 0, 1, 1, 1, 0], query_labels=[0, 1, 1], text_features=None),
        r"1 of 3 classes have no support row \('owl'\) and there are no text features",
    ),
    "wild label": (
        raw_arrays(support_labels=[0, 0, 1, 1, 2, 10**12], class_names=None, text_features=None),
        r"support_labels row 5 \(1000000000000\) is out of range",
    ),
    "empty name": (raw_arrays(class_names=["cat", " ", "owl"]), "class_names row 1"),
    "names no list": (raw_arrays(class_names="cat"), "class_names is no list"),
    "numbers as names": (raw_arrays(class_names=np.array([1, 2, 3])), "class_names has type int64"),
    "scale zero": (raw_arrays(logit_scale=0.0), "logit_scale is 0.0"),
    "scale NaN": (raw_arrays(logit_scale=float("nan")), "logit_scale is nan"),
    "scale vector": (raw_arrays(logit_scale=[1.0, 2.0]), "logit_scale has shape"),
    "pictures": (raw_arrays(query_images=torch.zeros(2, 3, 8, 8)), "query_images has shape"),
}


@pytest.mark.parametrize("arrays, message", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals_name_source_array_and_row_in_one_line(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        make_task("pets", **arrays, source="pets.npz")
    assert str(refusal.value).startswith("pets.npz: ")
    assert "\n" not in str(refusal.value)


def test_draws_follow_the_published_recipe() -> None:
    task = task_of_counts([4, 6, 5])
    drawn = few_shot(task, 3, seed=7)
    generator = np.random.default_rng(7)
    labels = task.support_labels.numpy()
    rows = np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:3] for c in range(3)])
    assert torch.equal(drawn.support_features, task.support_features[rows])
    assert torch.equal(drawn.support_norms, task.support_norms[rows])  # type: ignore[index, arg-type]
    assert drawn.support_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (drawn.shots, drawn.seed) == (3, 7)


@given(class_counts, st.integers(1, 6), st.integers(0, 2**32))
def test_draws_have_k_rows_per_class_or_all_there_are(counts: list[int], shots: int, seed: int) -> None:
    drawn = few_shot(task_of_counts(counts), shots, seed)
    assert torch.bincount(drawn.support_labels).tolist() == [min(count, shots) for count in counts]
    assert drawn.support_labels.tolist() == sorted(drawn.support_labels.tolist())
    assert len(torch.unique(drawn.support_features, dim=0)) == len(drawn.support_features)
    assert bool(drawn.notes) == any(count < shots for count in counts)


@given(class_counts, st.integers(1, 5), st.integers(0, 2**32))
def test_the_draw_of_k_begins_the_draw_of_k_plus_one(counts: list[int], shots: int, seed: int) -> None:
    task = task_of_counts(counts)
    fewer, more = few_shot(task, shots, seed), few_shot(task, shots + 1, seed)
    for label in range(task.num_classes):
        few = fewer.support_features[fewer.support_labels == label]
        many = more.support_features[more.support_labels == label]
        assert torch.equal(few, many[: len(few)])


def test_other_seeds_draw_other_rows() -> None:
    task = task_of_counts([50, 50])
    assert not torch.equal(few_shot(task, 5, 0).support_features, few_shot(task, 5, 1).support_features)


def test_no_shots_named_means_the_whole_support_set() -> None:
    task = task_of_counts([2, 3])
    assert few_shot(task, None, seed=0) is task


def test_classes_short_of_images_are_named_and_the_rest_counted() -> None:
    drawn = few_shot(task_of_counts([1, 2, 1, 1, 2, 1, 1, 9]), 3, seed=0)
    note = (
        "'class 0' has 1, 'class 1' has 2, 'class 2' has 1, 'class 3' has 1, 'class 4' has 2 and 2 more: "
        "fewer than the 3 images asked for, so all are used"
    )
    assert drawn.notes == (note,)


def test_zero_shots_and_negative_seeds_are_refused() -> None:
    task = task_of_counts([2, 3])
    with pytest.raises(UserError, match="--shots 0"):
        few_shot(task, 0, seed=0)
    with pytest.raises(UserError, match="--seed -1"):
        few_shot(task, 1, seed=-1)


def test_a_partial_task_needs_neither_queries_nor_all_classes() -> None:
    features = raw_arrays()["support_features"]
    bare = make_task("more", features[:2], [1, 1], partial=True)
    assert bare.is_partial and bare.class_names == ("class 0", "class 1") and bare.num_features == 4
    assert bare.query_features.shape == (0, 4) and bare.query_labels.shape == (0,) and bare.notes == ()
    lone = make_task("more", features[:1], [0], class_names=["owl"], partial=True)
    assert lone.class_names == ("owl",)
    few = make_task("more", features[:2], [2, 0], class_names=["cat", "dog", "owl"], partial=True)
    assert few_shot(few, 1, 0).is_partial and few_shot(few, 1, 0).support_labels.tolist() == [0, 2]
    with_queries = make_task("more", **raw_arrays(), partial=True)
    assert len(with_queries.query_labels) == 3


def test_a_partial_task_is_checked_as_others_are_and_good_for_updates_alone() -> None:
    features = raw_arrays()["support_features"]
    with pytest.raises(UserError, match=r"support_labels row 1 \(5\) is out of range"):
        make_task("more", features[:2], [0, 5], class_names=["cat", "dog"], partial=True)
    with pytest.raises(UserError, match=r"support_labels row 0 \(123456789\) is out of range"):
        make_task("more", features[:1], [123456789], partial=True)
    with pytest.raises(UserError, match=r"query_labels row 2 \(2\) is out of range"):
        make_task(
            "more",
            **raw_arrays(class_names=["cat", "dog"], text_features=None, support_labels=[0] * 6),
            partial=True,
        )
    with pytest.raises(UserError, match="a partial task, good only to update a posterior"):
        refuse_partial(make_task("more", features[:1], [0], partial=True))
    refuse_partial(make_task("pets", **raw_arrays()))


def test_a_draw_from_a_pool_is_that_from_the_whole_support_set() -> None:
    task = task_of_counts([5, 2, 4])
    labels = task.support_labels.numpy()
    drawn = [drawn_rows(labels, 3, 2, seed) for seed in (1, 2)]
    rows = np.unique(np.concatenate([row for draw in drawn for row in draw]))
    assert len(rows) < len(labels)
    part = task.with_support(torch.from_numpy(rows))
    for shots, seed in ((1, 1), (2, 1), (2, 2)):
        whole, few = few_shot(task, shots, seed), few_shot(part, shots, seed, Pool(labels, rows))
        assert torch.equal(whole.support_features, few.support_features)
        assert torch.equal(whole.support_labels, few.support_labels) and whole.notes == few.notes
