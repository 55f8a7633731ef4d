"""CSV files of paths and labels: the same as the folders they list, and refusals by line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from coop_sets import SHAPES, save_shapes

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.labelled_list import scan_list
from bayes_clip.data.resolve import load_task
from bayes_clip.errors import UserError


def table(path: Path, rows: Sequence[Sequence[str]], header: str = "path,label") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    return path


def listed(root: Path, count: int = 4) -> list[list[str]]:
    return [
        [str(path.relative_to(root)), shape]
        for shape in SHAPES
        for path in save_shapes(root / "pictures" / shape, shape, count)
    ]


def test_a_table_is_the_task_of_the_folder_it_lists(tmp_path: Path, pocket: Backbone) -> None:
    rows = sorted(listed(tmp_path))
    plain = load_task(tmp_path / "pictures", pocket)
    task = load_task(table(tmp_path / "shapes.csv", rows), pocket)
    assert task.name == "shapes" and task.class_names == plain.class_names
    for name in ("support_features", "support_labels", "query_features", "query_labels", "text_features"):
        assert torch.equal(getattr(task, name), getattr(plain, name)), name
    assert task.support_pictures is not None and task.support_pictures.names is not None
    assert task.support_pictures.names[0].endswith(".png")
    assert any("no column 'split'" in note for note in task.notes)


def test_splits_are_kept_and_val_is_left_out(tmp_path: Path) -> None:
    rows = listed(tmp_path)
    parts = ["Train", "support", "test", "val"] * len(SHAPES)
    mixed = [["x", part, *row] for row, part in zip(rows, parts, strict=True)]
    found = scan_list(table(tmp_path / "a.csv", mixed, " Colour,SPLIT ,Path,label"))
    assert found.class_names == tuple(sorted(SHAPES))
    assert (len(found.support), len(found.query)) == (8, 4)
    assert found.query.paths[0] == tmp_path / rows[2][0]
    assert found.notes == ("a.csv: colour not used", "rows of split 'val', which are left out: 4")


def test_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    rows = [[path, str({"square": 10, "circle": 9}.get(label, 11))] for path, label in listed(tmp_path)]
    found = scan_list(table(tmp_path / "a.csv", rows))
    assert found.class_names == ("9", "10", "11")
    assert any("labels are numbers" in note for note in found.notes)


def test_more_labels_for_a_posterior_may_be_of_one_class(tmp_path: Path, pocket: Backbone) -> None:
    task = load_task(table(tmp_path / "a.csv", listed(tmp_path)[:3]), pocket, partial=True)
    assert task.is_partial and task.class_names == (SHAPES[0],) and len(task.support_labels) == 3


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("", [], "is empty; its first line is path,label"),
        ("path,label", [], "a heading and no rows"),
        ("file,label", [["P", "a"]], r"line 1: needs one column 'path' and has file, label"),
        ("path;label", [["P;a"]], r"line 1: needs one column 'path'.*with commas"),
        ("path,label,label", [["P", "a", "b"]], "line 1: needs one column 'label'"),
        ("path,label", [["P", "a"], ["Q", "b", "c"]], "line 3: 3 cells for 2 columns; quote"),
        ("path,label", [["P", "a"], ["Q", " "]], "line 3: no label; fill it in"),
        ("path,label", [["P", "a"], ["", "b"]], "line 3: no path; fill it in"),
        ("path,label,split", [["P", "a", "train"], ["Q", "b", "tset"]], "line 3: split 'tset' is none of"),
        ("path,label", [["P", "a"], ["gone.png", "b"]], r"line 3: .*gone\.png: no such picture"),
        ("path,label", [["P", "a"], ["Q", "b"], ["P", "b"]], r"line 4: .*P stands in line 2 already"),
        ("path,label", [["P", "a"], ["Q", "a"]], r"one class only \('a'\)"),
        ("path,label", [["P", "a"], ["Q", "b"]], "leaves none to test on; add pictures or a column 'split'"),
        ("path,label,split", [["P", "a", "test"], ["Q", "b", "val"]], "no row of split 'train'"),
        ("path,label,split", [["P", "a", "train"], ["Q", "b", "train"]], "no row of split 'test'"),
        (
            "path,label,split",
            [["P", "a", "train"], ["Q", "b", "train"], ["R", "c", "test"]],
            "line 4: class 'c' has test rows but no train row",
        ),
        ("path,label", [['"P"x', "a"]], None),
    ],
)
def test_refusals_name_the_line(
    header: str, rows: list[list[str]], message: str | None, tmp_path: Path
) -> None:
    for name in "PQR":
        save_shapes(tmp_path, "square", 1)[0].rename(tmp_path / name)
    path = table(tmp_path / "a.csv", rows, header)
    if message is None:
        path.write_text('path,label\n"P"x,a\n')
        message = "line 2: no CSV"
    with pytest.raises(UserError, match=rf"a\.csv.*{message}"):
        scan_list(path)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path,label\n\xff\xfe,b\n")
    with pytest.raises(UserError, match=r"a\.csv: cannot be read .*UTF-8"):
        scan_list(tmp_path / "a.csv")
