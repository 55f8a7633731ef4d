from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from bayes_clip.backbone.templates import COOP_TEMPLATES, SET_NAMES, fill, read_templates, template_set
from bayes_clip.errors import UserError


def test_templates_come_from_a_set_a_sentence_a_list_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("a {}.\n\nthe {}!\n", encoding="utf-8")
    assert read_templates("ensemble") == template_set("ensemble")
    assert read_templates("dtd") == ("{} texture.",)
    assert read_templates("one {} alone") == ("one {} alone",)
    assert read_templates(["a {}", "b {}"]) == ("a {}", "b {}")
    assert read_templates(str(path)) == ("a {}.", "the {}!")


def test_every_set_has_places_for_the_name() -> None:
    for name in SET_NAMES:
        assert read_templates(list(template_set(name))) == template_set(name)
    assert len(COOP_TEMPLATES) == 11 and set(COOP_TEMPLATES) < set(SET_NAMES)


@pytest.mark.parametrize(
    ("name", "count", "shipped"),
    [
        ("ensemble", 7, open_clip.SIMPLE_IMAGENET_TEMPLATES),
        ("ensemble_80", 80, open_clip.OPENAI_IMAGENET_TEMPLATES),
    ],
)
def test_ensembles_are_those_of_open_clip(name: str, count: int, shipped: tuple) -> None:
    templates = read_templates(name)
    assert len(templates) == count
    for name in ("tabby cat", "{} odd"):
        assert fill(templates, name) == [template(name) for template in shipped]


def test_names_with_braces_are_safe() -> None:
    assert fill(("a {}.", "{} and {}"), "{0} set") == ["a {0} set.", "{0} set and {0} set"]


def test_templates_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("a {}\na cat\n")
    with pytest.raises(UserError, match=r"templates\.txt 2 \('a cat'\) has no \{\}"):
        read_templates(str(path))
    path.write_text("\n")
    with pytest.raises(UserError, match="no templates in it"):
        read_templates(str(path))
    path.write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match="cannot be read"):
        read_templates(str(path))
    with pytest.raises(UserError, match=r"neither a set .* nor a file.*Did you mean 'ensemble'"):
        read_templates("ensembel")
