"""What MkDocs calls: it gets the repository's own files as pages, and their links lead to pages."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(
    0, str(Path(__file__).parents[2])
)  # this checkout's package and notebooks, whatever is installed

import bayes_clip as bc
from analysis.docs.command_line import command_line_page
from analysis.docs.notebook_pages import notebook_pages
from analysis.docs.repository import (
    PAGES,
    ROOT,
    markdown_files,
    place_of,
    relinked,
    shown,
    targets,
)
from analysis.docs.studies import INDEX, all_studies, result_page, studies_page

# Path in the repository -> page. Filled while files are collected, read while pages are rendered.
_site: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the notebooks and the studies, whatever there are, to the navigation."""
    notebooks = [{page.title: f"notebooks/{page.name}.md"} for page in notebook_pages()]
    config.nav = [
        *(config.nav or []),
        {"Notebooks": notebooks},
        {"Studies": [{"All studies": "studies/index.md"}]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds pages made of the repository's files, and of whatever these link to."""
    texts = _texts()
    notebooks = notebook_pages()
    _site.clear()
    _site.update(markdown_files())
    _site[INDEX] = "studies/index.md"
    for page in notebooks:
        texts[f"analysis/notebooks/{page.name}.md"] = page.text
        for ending in ("md", "py", "ipynb"):
            _site[f"analysis/notebooks/{page.name}.{ending}"] = f"notebooks/{page.name}.md"
        for name, picture in page.pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    for path, text in list(texts.items()):
        for target in targets(text, path):
            if target not in _site:
                _site[target] = place_of(target)
                _add_linked(files, config, target)
    for path, text in texts.items():
        if not path.startswith(f"{PAGES}/"):
            page = _site[path]
            files.append(File.generated(config, page, content=relinked(text, path, page, _site)))
    files.append(File.generated(config, "command_line.md", content=command_line_page()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """The pages written for the site link to the repository's files as well; no public name is left out."""
    path = f"{PAGES}/{page.file.src_uri}"
    if page.file.src_uri == "api.md":
        markdown += _unlisted(markdown)
    return relinked(markdown, path, page.file.src_uri, _site) if path in _site else markdown


def _unlisted(markdown: str) -> str:
    """The public names that the page about them does not place under any heading."""
    names = [f"::: bayes_clip.{name}" for name in bc.__all__]
    missing = [name for name in names if not re.search(rf"^{re.escape(name)}$", markdown, re.MULTILINE)]
    return "\n\n".join(["", "## More", *missing, ""]) if missing else ""


def _texts() -> dict[str, str]:
    """Repository path -> markdown of every page that is made of a file."""
    studies = all_studies()
    found = {INDEX: studies_page()}
    for path in markdown_files():
        if path.startswith("analysis/results/"):
            found[path] = result_page(ROOT / path, studies)
        elif path.endswith(".md"):
            found[path] = (ROOT / path).read_text(encoding="utf-8")
        else:
            found[path] = shown(path)
    return found


def _add_linked(files: Files, config: MkDocsConfig, path: str) -> None:
    place = _site[path]
    if place.endswith(f"{path}.md"):
        files.append(File.generated(config, place, content=shown(path)))
    else:
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
