from __future__ import annotations

import pytest

from bayes_clip.errors import UserError
from bayes_clip.evaluation import checking
from bayes_clip.evaluation.checking import COLUMNS, Arm, CheckReport, arms_of, check
from bayes_clip.inference import ENGINE_COVARIANCES
from bayes_clip.inference.rules import DEFAULT_RULE, OTHER_RULES, RULES


@pytest.fixture(scope="module")
def report() -> CheckReport:
    return check(["ekf", "laplace", "map"], rules=["plain"], prior_logit_variances=[50.0], simulations=20)


def test_every_arm_at_every_prior_variance_is_one_row(report: CheckReport) -> None:
    assert [found.arm.engine for found in report.checks] == ["ekf", "laplace"]
    for found in report.checks:
        row = found.row
        assert tuple(row) == COLUMNS and row["simulations"] == 20
        assert (row["labels"] == "") == (row["engine"] == "laplace") == (found.numbers is None)
        assert 0 <= row["coverage_50"] <= row["coverage_80"] <= row["coverage_95"] <= 1
        assert row["pareto_k"] != "" and 0 < row["calibration_p"] <= 1
    assert report.notes == ("map is a point without doubt: there is nothing to check",)
    assert report.checks[0].verdict == "too narrow"
    numbers = report.checks[0].numbers
    assert numbers is not None and numbers.verdict == "passes"


def test_new_covariances_and_rules_come_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINE_COVARIANCES, "laplace", ("full", "brand_new"))
    monkeypatch.setitem(RULES, "brand_new_rule", RULES["plain"])
    arms, _ = arms_of(["laplace", "ekf"], "linear_probe", ["all"], ["all"])
    assert Arm("linear_probe", "laplace", "brand_new", "") in arms
    assert {arm.rule for arm in arms if arm.engine == "ekf"} == {*RULES, *OTHER_RULES}
    default, _ = arms_of(["ekf", "nuts"], "linear_probe", None, None)
    assert default == [
        Arm("linear_probe", "ekf", ENGINE_COVARIANCES["ekf"][0], DEFAULT_RULE),
        Arm("linear_probe", "nuts", "", ""),
    ]


def test_an_arm_that_cannot_be_fitted_is_left_out_with_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise UserError("it does not go")

    monkeypatch.setattr(checking, "check_arm", refuse)
    found = check(["laplace"], prior_logit_variances=[1.0, 10.0], simulations=20)
    assert found.checks == () and found.notes == ("laplace · class_block is left out: it does not go",)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"engines": ["ekff"]}, r"--engines ekff: no such engine\. Did you mean 'ekf'"),
        ({"covariances": ["fulll"]}, r"--covariance fulll: no such covariance\. Did you mean 'full'"),
        ({"rules": ["plane"]}, r"--rule plane: no such rule\. Did you mean 'plain'"),
        ({"simulations": 5}, "--simulations 5: too few"),
        ({"prior_logit_variances": [0.0]}, "--prior-logit-variance 0: must be a positive number"),
        ({"model": "linear_prob"}, r"linear_prob"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(asked: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(**{"simulations": 20, **asked})


def test_the_arms_name_themselves_and_their_settings() -> None:
    arm = Arm("linear_probe", "ekf", "full", "iterated")
    assert arm.label == "ekf · full · iterated"
    assert (arm.settings.family, arm.settings.update_rule) == ("full", "iterated")
    assert Arm("linear_probe", "nuts", "", "").label == "nuts"
