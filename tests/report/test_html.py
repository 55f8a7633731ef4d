"""The page: self-contained, escaped, complete; and words that follow the numbers, also when they are bad."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from bayes_clip.evaluation.metrics import nll
from bayes_clip.evaluation.results import Comparison, score
from bayes_clip.report.arms import detailed, featured, settings_of
from bayes_clip.report.figures import draw
from bayes_clip.report.html import render
from bayes_clip.report.picture import Picture
from bayes_clip.report.svg import inline, svg_text
from bayes_clip.report.tables import metric_table
from bayes_clip.report.words import best, difference, headline, verdict

VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """Notes every tag, id and attribute, and that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def pictures(comparison: Comparison) -> list[Picture]:
    return draw(comparison)


@pytest.fixture(scope="module")
def html(comparison: Comparison, pictures: list[Picture]) -> str:
    return render(comparison, pictures, {picture.name: svg_text(picture.figure) for picture in pictures})


def weakened(comparison: Comparison, engine: str) -> Comparison:
    """The same comparison, in which one engine gives nearly even probabilities."""
    runs = []
    for run in comparison.runs:
        if run.row["engine"] == engine:
            probabilities = 0.1 * run.probabilities + 0.9 / run.probabilities.shape[1]
            row = {**run.row, **score(probabilities, run.labels, run.novelty, run.ood_novelty)}
            run = replace(run, row=row, probabilities=probabilities)
        runs.append(run)
    return replace(comparison, runs=tuple(runs))


def test_page_is_well_formed_and_needs_nothing_from_outside(html: str) -> None:
    page = Page(html)
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        assert tag not in {"link", "iframe", "object", "embed"}
        source = attrs.get("src") or attrs.get("href") or attrs.get("xlink:href") or "#"
        assert source.startswith(("#", "data:"))
        if source.startswith("#") and len(source) > 1:
            assert source[1:] in ids
    assert "@import" not in html and not re.search(r"url\((?!#)", html)


def test_every_figure_is_there_with_words(html: str, pictures: list[Picture]) -> None:
    page = Page(html)
    drawings = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawings) == len(re.findall("<figcaption>", html)) == len(pictures) == 15
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    assert all("width" not in attrs for attrs in drawings)
    text = " ".join(page.text.split())
    assert all(" ".join(picture.finding.split()) in text for picture in pictures)
    assert "mathdefault" not in html  # a number on an axis, in the wrong words


def test_names_from_outside_are_escaped(html: str) -> None:
    assert "<b>bold</b>" not in html
    assert "&lt;b&gt;bold" in html


def test_page_tells_what_was_asked_and_how_to_repeat_it(html: str, comparison: Comparison) -> None:
    text = Page(html).text
    for expected in (
        *comparison.notes,
        "bayes-clip compare first second",
        "Glossary",
        "ECE",
        "2 draws",
        "torch",
    ):
        assert expected in text
    for engine in ("zero_shot", "map", "ekf"):
        assert engine in text


def test_tables_hold_means_errors_and_mark_the_best(comparison: Comparison) -> None:
    setting = settings_of(comparison)[0]
    table = metric_table(setting)
    column = [heading for heading, _ in table.headings].index("NLL")
    cells = {row.label: row.cells[column] for row in table.rows}
    values = [float(run.row["nll"]) for run in setting.arms["ekf"]]
    assert cells["ekf"].mean == f"{np.mean(values):.3f}"
    assert cells["ekf"].error == f"{abs(values[0] - values[1]) / 2:.3f}"
    assert [label for label, cell in cells.items() if cell.best] == [best(setting, "nll")] == ["ekf"]
    assert [row.label for row in table.rows if row.featured] == ["ekf"]
    without = metric_table(settings_of(comparison)[1])
    assert "OOD AUROC" not in [heading for heading, _ in without.headings]


def test_headline_says_when_the_featured_engine_loses(comparison: Comparison) -> None:
    lost = headline(settings_of(weakened(comparison, "ekf")))
    assert (
        lost == "The Kalman filter does not give the best probabilities on first and second: map did better"
    )
    won = weakened(weakened(comparison, "map"), "zero_shot")
    assert headline(settings_of(won)) == "The Kalman filter gives the best probabilities on first and second"


def test_headline_speaks_of_noise_where_there_is_no_clear_winner(comparison: Comparison) -> None:
    level = tuple(run for run in comparison.runs if run.row["engine"] != "map")
    twins = tuple(
        replace(run, row={**run.row, "engine": "map"}) for run in level if run.row["engine"] == "ekf"
    )
    found = headline(settings_of(replace(comparison, runs=level + twins)))
    assert found == "No engine gives clearly better probabilities than the Kalman filter on first and second"


def test_verdict_sentences_carry_the_numbers(comparison: Comparison) -> None:
    first, second = (verdict(setting) for setting in settings_of(comparison))
    accuracy = np.mean([float(run.row["accuracy"]) for run in settings_of(comparison)[0].arms["ekf"]])
    assert f"ekf names the right class of {accuracy:.1%} of 120 test images" in first.sentences[0]
    assert "a gain of" in first.sentences[0]
    assert "OOD AUROC" in first.sentences[-1] and "OOD AUROC" not in " ".join(second.sentences)
    bad = verdict(settings_of(weakened(comparison, "ekf"))[0])
    assert "clearly lower" in bad.sentences[1] and "too little" in bad.sentences[2]


def test_differences_are_paired_by_seed_and_by_row(comparison: Comparison) -> None:
    setting = settings_of(comparison)[0]
    gap = difference(setting, "ekf", "map", "nll")
    rows = [
        [
            nll(one.probabilities[[i]], one.labels[[i]]) - nll(two.probabilities[[i]], two.labels[[i]])
            for i in range(120)
        ]
        for one, two in zip(setting.arms["ekf"], setting.arms["map"], strict=True)
    ]
    variance = np.var(np.mean(rows, axis=0)) / 120 + np.var(np.mean(rows, axis=1), ddof=1) / 2
    assert gap.mean == pytest.approx(np.mean(rows)) and gap.half_width == pytest.approx(1.96 * variance**0.5)
    assert not difference(setting, "ekf", "ekf", "accuracy").clear


def test_settings_are_ordered_and_named(make_comparison: Callable[..., Comparison]) -> None:
    settings = settings_of(make_comparison(shots=("", 16, 1), seeds=(0,)))
    assert [setting.slug for setting in settings[:3]] == ["first_1_shots", "first_16_shots", "first_all"]
    assert [setting.name for setting in settings[3:5]] == [
        "second, 1 image per class",
        "second, 16 images per class",
    ]
    assert [setting.slug for setting in detailed(settings)] == ["first_all", "second_all"]
    assert featured(settings[0]) == "ekf"


def test_labels_tell_arms_of_one_engine_apart(comparison: Comparison) -> None:
    more = tuple(
        replace(run, row={**run.row, "covariance": "full"})
        for run in comparison.runs
        if run.row["engine"] == "ekf"
    )
    (setting, _) = settings_of(replace(comparison, runs=comparison.runs + more))
    assert list(setting.arms) == ["zero_shot", "map", "ekf · class_block", "ekf · full"]


def test_labels_say_no_more_than_it_takes(comparison: Comparison) -> None:
    others = {"model": "tip_adapter", "covariance": "diagonal"}
    more = tuple(
        replace(run, row={**run.row, **others}) for run in comparison.runs if run.row["engine"] == "ekf"
    )
    (setting, _) = settings_of(replace(comparison, runs=comparison.runs + more))
    assert list(setting.arms) == ["zero_shot", "map", "ekf · linear_probe", "ekf · tip_adapter"]


def test_several_shot_counts_get_curves(make_comparison: Callable[..., Comparison]) -> None:
    whole = make_comparison(shots=(1, 4), seeds=(0,))
    second = replace(whole, runs=tuple(run for run in whole.runs if run.row["task"] == "second"))
    names = [picture.name for picture in draw(second)]
    assert "shots_second" in names and "reliability_second_4_shots" in names
    assert "reliability_second_1_shots" not in names


def test_one_run_alone_makes_a_report(make_comparison: Callable[..., Comparison]) -> None:
    whole = make_comparison(seeds=(0,))
    alone = replace(whole, runs=whole.runs[:1], tasks={"first": whole.tasks["first"]})
    pictures = draw(alone)
    text = render(alone, pictures, {picture.name: svg_text(picture.figure) for picture in pictures})
    assert "zero_shot, measured" in text and "One draw only (seed 0)" in text


def test_the_whole_support_set_is_no_draw_and_has_no_seed(make_comparison: Callable[..., Comparison]) -> None:
    drawn = make_comparison(shots=("",), seeds=(0,))
    kept = [run for run in drawn.runs if run.row["task"] == "second"]
    runs = tuple(replace(run, row={**run.row, "seed": ""}) for run in kept)
    whole = replace(drawn, runs=runs, tasks={"second": drawn.tasks["second"]})
    pictures = draw(whole)
    assert not any("seed" in picture.title for picture in pictures)
    text = render(whole, pictures, {picture.name: svg_text(picture.figure) for picture in pictures})
    assert "Every labelled image was used." in text and "One draw" not in text


def test_svg_takes_the_colours_of_the_page_and_keeps_its_ids_apart(pictures: list[Picture]) -> None:
    picture = next(picture for picture in pictures if picture.name.startswith("reliability"))
    text = svg_text(picture.figure)
    assert text == svg_text(picture.figure) and "#0072b2" in text
    element = inline(text, "here", 'a "quoted" <alt>')
    assert "#0072b2" not in element and "var(--engine-ekf)" in element
    assert element.startswith("<svg ") and "&#34;quoted&#34; &lt;alt&gt;" in element
    assert all(name.startswith("here-") for name in re.findall(r'\bid="([^"]+)"', element))
    assert all(name.startswith("here-") for name in re.findall(r"url\(#([^)]+)\)", element))
