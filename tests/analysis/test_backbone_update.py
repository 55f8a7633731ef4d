"""The compatibility table on a small pair of tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_problems import tiny_task
from two_encoders import isometry

from analysis.backbone_update import table as study
from analysis.backbone_update.arms import MORE, Pair, draw, measure


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A task as two encoders see it; the second is a rotation of the first into more dimensions."""
    old = tiny_task(features=6, shots=9)
    turn = isometry(9, 6).float()
    assert old.text_features is not None
    new = replace(
        old,
        support_features=old.support_features @ turn.mT,
        query_features=old.query_features @ turn.mT,
        text_features=old.text_features @ turn.mT,
    )
    return Pair(old, new)


def test_fresh_labels_are_none_that_were_seen(pair: Pair) -> None:
    drawn = draw(pair, 4, 0)
    for more in MORE:
        fresh, both = drawn.fresh[more], drawn.both[more]
        assert torch.bincount(fresh.support_labels).tolist() == [more] * 3
        together = torch.cat([drawn.seen_new.support_features, fresh.support_features])
        assert torch.equal(together.unique(dim=0), both.support_features.unique(dim=0))


def test_every_arm_has_its_numbers_or_its_reason(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.run([pair], ["linear_probe", "task_residual"], [0], tmp_path / "results.csv")
    monkeypatch.setattr(study, "draw", None)  # what is there is not done again
    study.run([pair], ["linear_probe"], [0], tmp_path / "results.csv")
    table = pd.read_csv(tmp_path / "results.csv")
    for _, part in table.groupby("model"):
        assert set(study.ARMS) <= set(zip(part["arm"], part["k"], strict=True))
    assert (table["accuracy"].isna() == table["note"].notna()).all()
    assert table.loc[table["arm"] == "unchanged", "note"].str.contains("3 × 6 there and 3 × 9 here").all()
    by_arm = table[(table["model"] == "linear_probe") & (table["k"] == 0)].set_index("arm")["nll"]
    assert by_arm["transported"] == pytest.approx(by_arm["on the old encoder"], rel=1e-3)
    study.write(tmp_path)
    assert "### How linear heads are carried" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 1000


def test_the_same_encoder_can_be_left_unchanged(pair: Pair) -> None:
    same = Pair(pair.old, pair.old)
    rows = {row["arm"]: row for row in measure(same, "linear_probe", draw(same, 4, 0)) if row["k"] == 0}
    assert rows["unchanged"]["nll"] == pytest.approx(rows["on the old encoder"]["nll"], rel=1e-6)
