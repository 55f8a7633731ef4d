"""The documentation renders without a warning, fetches nothing, and shows what is public."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import bayes_clip as bc
from bayes_clip.cli import app

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "analysis" / "docs" / "mkdocs.yml"
PAGES = ROOT / "analysis" / "docs" / "pages"
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}

if importlib.util.find_spec("mkdocs") is None:
    if os.environ.get("CI"):
        raise RuntimeError("continuous integration needs mkdocs: pip install '.[docs]'")
    pytest.skip("mkdocs is not installed: pip install '.[docs]'", allow_module_level=True)


class Loads(HTMLParser):
    """What a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in ("canonical", "next", "prev", "edit"):
            return
        self.found += [value for name, value in attrs if name == LOADING.get(tag) and value]


def render(out: Path) -> None:
    """Build the site as `make docs` does, elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    done = subprocess.run(
        [*command, "--config-file", str(CONFIG), "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_renders_strictly_and_whole(tmp_path: Path) -> None:
    """One test, because every worker would render it anew: half a minute."""
    render(tmp_path)
    for page in ("index", "engines", "command_line", "api", "studies/index", "notebooks/01_first_posterior"):
        assert (tmp_path / f"{page}.html").is_file()
    assert {path.stem for path in PAGES.glob("*.md")} <= {path.stem for path in tmp_path.glob("*.html")}
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert loaded_from_elsewhere(text) == [], page
        assert page.name == "404.html" or dangling(page, text) == []
    assert undocumented((tmp_path / "api.html").read_text(encoding="utf-8")) == []
    headings = (tmp_path / "command_line.html").read_text(encoding="utf-8")
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert [name for name in names if f'id="{name}"' not in headings] == []


def loaded_from_elsewhere(text: str) -> list[str]:
    """What a page would fetch from the network by itself."""
    loads = Loads()
    loads.feed(text)
    return [what for what in loads.found if re.match(r"(https?:)?//", what)]


def dangling(page: Path, text: str) -> list[str]:
    """Links and pictures without a file. MkDocs looks at those in markdown only; some here come as HTML."""
    targets = re.findall(r'(?:href|src)="([^"#?:]+)["#?]', text)
    return [target for target in targets if not (page.parent / target).exists()]


def undocumented(text: str) -> list[str]:
    """Public names that the page of the Python interface does not show."""
    return [name for name in bc.__all__ if f'id="bayes_clip.{name}"' not in text]


def test_what_the_checks_look_for_is_found(tmp_path: Path) -> None:
    text = '<script src="https://cdn.example/x.js"></script><a href="gone.html#top">gone</a>'
    assert loaded_from_elsewhere(text) == ["https://cdn.example/x.js"]
    assert dangling(tmp_path / "page.html", text) == ["gone.html"]
    assert undocumented(text) == list(bc.__all__)


def test_the_page_of_the_interface_names_what_there_is() -> None:
    listed = re.findall(r"^::: bayes_clip\.(\w+)$", (PAGES / "api.md").read_text(encoding="utf-8"), re.M)
    assert [name for name in listed if name not in bc.__all__] == []


def test_links_of_the_pages_lead_somewhere_in_the_repository_too() -> None:
    for page in PAGES.glob("*.md"):
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        inside = [link for link in links if link.startswith("..")]
        assert [link for link in inside if not (page.parent / link).exists()] == [], page
