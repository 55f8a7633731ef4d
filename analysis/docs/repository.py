"""Where the files of the repository stand on the site, and links between them.

Every markdown file of the repository links to others by relative path, so that it reads well where it is. On
the site the same links lead to the pages made of those files: markdown to its page, other text to a page that
shows it, everything else to a copy.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
PAGES = "analysis/docs/pages"

# Repository path -> page; further markdown is found below analysis/.
NAMED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "source/LICENSE.md",
    "bayes_clip/inference/README.md": "engines.md",
    "models/pocket_clip/CARD.md": "pocket_clip.md",
    "analysis/benchmarks/README.md": "benchmarks.md",
    "analysis/other_heads.md": "other_heads.md",
}
LANGUAGES = {
    ".py": "python",
    ".json": "json",
    ".toml": "toml",
    ".css": "css",
    ".js": "javascript",
    ".yml": "yaml",
}
FENCE = re.compile(r"^\s*(```|~~~)")
TARGET = re.compile(r"\]\(([^)\s]+)\)")


def markdown_files() -> dict[str, str]:
    """Repository path -> page of every markdown file that is on the site."""
    found = dict(NAMED)
    for path in sorted((ROOT / "analysis").rglob("*.md")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(f"{PAGES}/"):
            found[name] = name.removeprefix(f"{PAGES}/")
        else:
            found.setdefault(name, "studies/" + name.removeprefix("analysis/").removeprefix("results/"))
    return {name: page for name, page in found.items() if (ROOT / name).is_file()}


def targets(text: str, path: str) -> list[str]:
    """Repository paths of the files that markdown at `path` links to; others are left out."""
    found = (_resolved(target, path) for line in _prose(text) for target in TARGET.findall(line))
    return [target for target, _ in filter(None, found)]


def place_of(path: str) -> str:
    """Where a file that is no page of its own goes: text on a page that shows it, the rest as it is."""
    return f"source/{path}.md" if _language(path) is not None else f"files/{path}"


def shown(path: str) -> str:
    """The page that shows a text file."""
    text = (ROOT / path).read_text(encoding="utf-8").rstrip("\n")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 3)
    return f"# {PurePosixPath(path).name}\n\n`{path}`\n\n{fence}{_language(path)}\n{text}\n{fence}\n"


def relinked(text: str, path: str, page: str, site: Mapping[str, str]) -> str:
    """Markdown of the file at `path`, which becomes `page`, with its links leading to pages of the site."""

    def relink(match: re.Match[str]) -> str:
        resolved = _resolved(match.group(1), path)
        if resolved is None or resolved[0] not in site:
            return match.group(0)
        target, anchor = resolved
        return f"]({posixpath.relpath(site[target], posixpath.dirname(page) or '.')}{anchor})"

    kept = set(_prose(text))
    return "\n".join(TARGET.sub(relink, line) if line in kept else line for line in text.split("\n"))


def _prose(text: str) -> list[str]:
    """Lines that are outside fenced code."""
    outside, lines = True, []
    for line in text.split("\n"):
        if FENCE.match(line):
            outside = not outside
        elif outside:
            lines.append(line)
    return lines


def _resolved(target: str, path: str) -> tuple[str, str] | None:
    """The file of the repository that a link at `path` leads to, and its anchor."""
    if re.match(r"[a-z]+:", target) or target.startswith(("#", "/")):
        return None
    name, hash_sign, anchor = target.partition("#")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    if found.startswith("..") or not (ROOT / found).is_file():
        return None
    return found, hash_sign + anchor


def _language(path: str) -> str | None:
    """What to highlight a text file as; None for files that are not to be read."""
    if os.path.basename(path) in ("Makefile", "LICENSE"):
        return "text"
    return LANGUAGES.get(PurePosixPath(path).suffix)
