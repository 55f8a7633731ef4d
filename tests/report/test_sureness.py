"""What the report concludes from intervals and tests."""

from __future__ import annotations

from collections.abc import Callable

from bayes_clip.evaluation.intervals import interval_rows, resampled
from bayes_clip.evaluation.results import Comparison
from bayes_clip.evaluation.row_tests import QUERY_ROWS, paired_rows
from bayes_clip.report.arms import settings_of
from bayes_clip.report.sureness import conclusions, sureness


def pair(method: str, other: str, difference: float, p: float, metric: str = "nll") -> dict[str, object]:
    return {"metric": metric, "method": method, "other": other, "difference": difference, "p_holm": p}


def test_conclusions_name_who_is_ahead_and_of_whom_it_is_told_apart() -> None:
    rows = [pair("a", "b", 0.1, 0.01), pair("a", "c", 0.3, 0.001), pair("b", "c", 0.2, 0.5)]
    assert conclusions(rows, QUERY_ROWS) == [
        "NLL: c is ahead, by more than chance of a; not told apart from b (over query rows)."
    ]
    rows = [pair("a", "b", 0.1, 0.3, "accuracy")]
    assert conclusions(rows, "seeds") == [
        "Accuracy: a is ahead, but of none by more than chance (b) (over seeds)."
    ]


def test_tables_show_every_score_and_every_rival(make_comparison: Callable[..., Comparison]) -> None:
    for seeds in ((0,), (0, 1)):
        comparison = make_comparison(seeds=seeds)
        every = resampled(comparison.runs, 50)
        settings = settings_of(comparison)
        found = sureness(settings, interval_rows(every), paired_rows(comparison, every))
        assert [one.title for one in found] == [setting.name for setting in settings]
        intervals, pairs = found[0].tables
        assert [row[0].text for row in intervals.rows][:4] == ["Accuracy", "NLL", "Brier", "ECE"]
        assert "OOD AUROC" in {row[0].text for row in intervals.rows}
        value = comparison.runs[0].row["accuracy"]
        assert intervals.rows[0][1].text.startswith(f"{value:.3f} (")
        metrics = 4 if len(seeds) == 1 else 3
        rivals = len(settings[0].arms) - 1
        assert len(pairs.rows) == metrics * rivals
        over = "query rows" if len(seeds) == 1 else "seeds"
        assert over in pairs.title and all(over in sentence for sentence in found[0].sentences)


def test_one_run_alone_has_intervals_and_no_tests(make_comparison: Callable[..., Comparison]) -> None:
    comparison = make_comparison(seeds=(0,))
    alone = Comparison(comparison.runs[:1], comparison.tasks, {})
    (found,) = sureness(settings_of(alone), interval_rows(resampled(alone.runs, 50)), [])
    assert len(found.tables) == 1 and found.sentences == ()
