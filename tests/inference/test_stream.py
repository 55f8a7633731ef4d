"""The loop that feeds a filter: the same as feeding by hand, and the same wherever it stops."""

from __future__ import annotations

import pytest
import torch
from small_problems import assert_near, small_problem

from bayes_clip.errors import UserError
from bayes_clip.inference import ENGINE_COVARIANCES, kalman
from bayes_clip.inference.feeding import Batches, feed
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.program import read_program
from bayes_clip.inference.refine import refine
from bayes_clip.inference.rules import OTHER_RULES, RULES
from bayes_clip.inference.stream import Course, Cursor, Stream, canonical, run, walk
from bayes_clip.model import context_of, find_model
from bayes_clip.settings import FitSettings
from bayes_clip.state_space import StateSpace
from bayes_clip.storage.packing import pack_sites, pack_stream, taken, under, unpack_sites, unpack_stream

PROBLEM = small_problem(rows=9)
DATA = [Batch(PROBLEM.design[part], PROBLEM.labels[part]) for part in torch.arange(9).split(2)]
BIG = small_problem(rows=40)
LARGE = [Batch(BIG.design[part], BIG.labels[part]) for part in torch.arange(40).split(20)]
RULE = RULES["iterated"]
PROGRAM = read_program(
    find_model("linear_probe")(context_of(PROBLEM.mean, ("a", "b", "c"), 1.0, 5), 0.5), PROBLEM.design
)


def start(family: str = "class_block") -> kalman.KalmanState:
    return kalman.init(PROBLEM.mean, PROBLEM.variance, family)


def test_one_pass_is_one_update_after_another() -> None:
    space, state = StateSpace(decay=0.9), start()
    for batch in DATA:
        state, _ = kalman.update(state, batch, RULE, space)
    ended, infos = run(start(), DATA, RULE, space)
    assert torch.equal(ended.belief.covariance, state.belief.covariance)
    assert ended.steps == state.steps == len(infos) == 5


@pytest.mark.parametrize("family", ["class_block", "full"])
def test_further_passes_take_batches_out_and_put_them_in_again(family: str) -> None:
    """Joined: what five batches said is taken out as one, and learned again as one (tests of `refine`)."""
    state, sites = start(family), []
    for batch in DATA:
        state, _, site = kalman.put_in(state, batch, RULE)
        sites.append(site)
    refined = refine(state, DATA, sites, RULE)
    ended, infos = run(start(family), DATA, RULE, passes=2)
    assert_near(ended.belief.mean, refined.state.belief.mean)
    assert_near(ended.belief.covariance, refined.state.belief.covariance)
    assert len(infos) == len(refined.infos) == 1


def test_where_it_stands_is_all_it_takes_to_go_on() -> None:
    """Large batches stay as they are; small ones are joined after the first pass."""
    for data in (DATA, LARGE):
        course = Course(data, RULE, passes=3)
        whole = [cursor for cursor, _ in walk(course, Cursor(start()))]
        swept = 1 if data is DATA else 2
        assert [(cursor.sweep, cursor.index) for cursor in whole] == [
            *((0, index + 1) for index in range(len(data))),
            *((sweep, index + 1) for sweep in (1, 2) for index in range(swept)),
        ]
        for stop in range(len(whole)):
            rest = [cursor for cursor, _ in walk(course, whole[stop])]
            last = (rest or [whole[stop]])[-1]
            assert torch.equal(last.state.belief.covariance, whole[-1].state.belief.covariance)
            assert len(rest) == len(whole) - 1 - stop


def test_batches_that_are_known_are_swept_from_the_second_pass_on() -> None:
    first = [cursor for cursor, _ in walk(Course(LARGE[:1], RULE, passes=2), Cursor(start()))][-1]
    course = Course(LARGE, RULE, passes=2, known=1)
    fed = [(c.sweep, c.index) for c, _ in walk(course, Cursor(first.state, first.sites))]
    assert fed == [(0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize("covariance", ENGINE_COVARIANCES["ekf"])
def test_covariances_that_keep_too_little_are_refused_by_name(covariance: str) -> None:
    if covariance in ("class_block", "full"):
        assert run(start(covariance), DATA[:1], RULE, passes=2)[0].steps == 1
        return
    even = kalman.init(PROBLEM.mean, torch.ones_like(PROBLEM.mean), covariance)
    with pytest.raises(UserError, match=f"--passes above 1 with --covariance {covariance}:"):
        run(even, DATA, RULE, passes=2)


def test_a_stream_that_drifts_is_seen_once_and_no_pass_is_none() -> None:
    with pytest.raises(UserError, match="a drifting stream is seen once"):
        run(start(), DATA, RULE, StateSpace(decay=0.9), passes=2)
    with pytest.raises(UserError, match="--passes 0: must be at least 1"):
        run(start(), DATA, RULE, passes=0)


@pytest.mark.parametrize("name", OTHER_RULES)
def test_rules_that_step_in_the_weights_take_one_pass(name: str) -> None:
    with pytest.raises(UserError, match=f"--passes above 1 with --rule {name}: what a batch said"):
        run(start(), DATA, OTHER_RULES[name], passes=2)


def test_the_canonical_form_is_that_of_a_file() -> None:
    turned = kalman.Site(torch.ones(2, 3, 4).permute(2, 0, 1), torch.ones(3, 1).mT)
    plain = canonical(turned)
    assert plain.matrix.stride() == (6, 3, 1) and plain.linear.stride() == (3, 1)
    assert canonical(plain).matrix is plain.matrix


def test_sites_of_all_sizes_come_back_from_their_packing() -> None:
    sites = [cursor for cursor, _ in walk(Course(DATA, RULE, keeps_sites=True), Cursor(start("full")))][
        -1
    ].sites
    again = unpack_sites(pack_sites(sites))
    assert [site.matrix.shape for site in again] == [(6, 6)] * 4 + [(3, 3)]
    for mine, its in zip(again, sites, strict=True):
        assert torch.equal(mine.matrix, its.matrix) and torch.equal(mine.linear, its.linear)
    assert unpack_sites(pack_sites([])) == ()


def test_streams_come_back_from_their_packing() -> None:
    settings = FitSettings(rule="plain", order="given", batch_size=4, passes=2)
    _, stream, _ = feed(
        start().belief,
        Stream(PROBLEM.mean, PROBLEM.variance, 0),
        PROBLEM.design,
        PROBLEM.labels,
        settings,
        classes=3,
        program=PROGRAM,
    )
    tensors = under("stream", pack_stream(stream))
    again = unpack_stream(taken("stream", tensors), {"steps": 3, "updates": 2}, "cpu")
    assert not tensors and (again.steps, again.updates, again.kept.sizes) == (3, 2, (9,))
    assert torch.equal(again.kept.labels, PROBLEM.labels) and again.kept.labels.dtype == torch.int64


def test_a_batch_depends_on_its_own_rows_alone() -> None:
    batches = Batches(PROBLEM.design, PROBLEM.labels, [4, 4, 1], PROGRAM)
    assert len(batches) == 3 and [len(batch.labels) for batch in batches[1:]] == [4, 1]
    lone = Batches(PROBLEM.design[4:8], PROBLEM.labels[4:8], [4], PROGRAM)[0]
    assert torch.equal(batches[1].labels, lone.labels) and torch.equal(batches[1].design, lone.design)
