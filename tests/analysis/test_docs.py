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

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "analysis" / "docs" / "mkdocs.yml"
PAGES = ROOT / "analysis" / "docs" / "pages"
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}

if importlib.util.find_spec("mkdocs") is None:
    if os.environ.get("CI"):
        raise RuntimeError("continuous integration needs mkdocs: pip install '.[docs]'")
    pytest.skip("mkdocs is not installed: pip install '.[docs]'", allow_module_level=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    done = subprocess.run(
        [*command, "--config-file", str(CONFIG), "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


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


def test_it_renders_strictly_with_every_page(site: Path) -> None:
    for page in ("index", "engines", "command_line", "api", "studies/index", "notebooks/01_first_posterior"):
        assert (site / f"{page}.html").is_file()
    assert {path.stem for path in PAGES.glob("*.md")} <= {path.stem for path in site.glob("*.html")}


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert [what for what in loads.found if re.match(r"(https?:)?//", what)] == [], page


def test_every_link_and_picture_is_there(site: Path) -> None:
    """MkDocs looks at links of markdown only; tables of notebooks and pages of code are HTML."""
    for page in site.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#?:]+)["#?]', page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists() or page.name == "404.html", f"{page}: {target}"


def test_all_that_is_public_is_documented(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    assert [name for name in bc.__all__ if f'id="bayes_clip.{name}"' not in text] == []
    listed = re.findall(r"^::: bayes_clip\.(\w+)$", (PAGES / "api.md").read_text(encoding="utf-8"), re.M)
    assert [name for name in listed if name not in bc.__all__] == []


def test_the_command_line_is_the_one_there_is(site: Path) -> None:
    text = (site / "command_line.html").read_text(encoding="utf-8")
    from bayes_clip.cli import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert [name for name in names if f'id="{name}"' not in text] == []


def test_links_of_the_pages_lead_somewhere_in_the_repository_too() -> None:
    for page in PAGES.glob("*.md"):
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        inside = [link for link in links if link.startswith("..")]
        assert [link for link in inside if not (page.parent / link).exists()] == [], page
