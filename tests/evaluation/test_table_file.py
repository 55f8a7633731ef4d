from __future__ import annotations

from pathlib import Path

import pytest

from bayes_clip.errors import UserError
from bayes_clip.evaluation.table_file import agree, read_rows, remove_unfinished, write_rows
from bayes_clip.storage import files


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert read_rows(path, ["a"]) == []
    write_rows(path, [{"a": 0.1 + 0.2, "b": ""}, {"a": "x,y", "c": 3}], ["a", "b"])
    rows = read_rows(path, ["a"])
    assert rows == [
        {"a": "0.30000000000000004", "b": "", "c": ""},
        {"a": "x,y", "b": "", "c": "3"},
    ]
    before = path.read_bytes()
    write_rows(path, rows, ["a", "b"])
    assert path.read_bytes() == before


def test_a_table_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    write_rows(path, [{"a": 1}], ["a"])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_rows(path, [{"a": 1}, {"a": 2}], ["a"])
    assert read_rows(path, ["a"]) == [{"a": "1"}]
    (tmp_path / ".t.csv.abc.part").write_text("a\n1\n2")
    remove_unfinished(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    "text, message",
    [("b\n1\n", "has no column a"), ("a,b\n1,2\n3\n", "line 3: not as many values"), ("a\n1,2\n", "line 2")],
)
def test_other_tables_and_half_rows_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(path, ["a"])


def test_what_is_shared_must_stay_and_data_sets_may_join(tmp_path: Path) -> None:
    path = tmp_path / "protocol.json"
    agree(path, {"decay": 1.0, "rule": None}, {"dtd": {"classes": 47}})
    agree(path, {"decay": 1.0, "rule": None}, {"pets": {"classes": 37}})
    agree(path, {"decay": 1.0, "rule": None}, {"dtd": {"classes": 47}})
    with pytest.raises(UserError, match=r"were made with rule unset, now it is plain; give the same"):
        agree(path, {"decay": 1.0, "rule": "plain"}, {})
    with pytest.raises(UserError, match=r"its rows of pets were made with classes 37, now it is 36"):
        agree(path, {"decay": 1.0, "rule": None}, {"pets": {"classes": 36}})
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        agree(path, {}, {})
