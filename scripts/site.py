"""Hooks of the documentation site (mkdocs.yml): what stands elsewhere in the repository becomes part of it.

Pages are written so that their links work in the repository. On the site a link that leads out of `docs/` leads to
the page that it has become; a file that is no page has no link there, only its path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/tenant-service/README.md": "example-service.md",
    "ops/README.md": "operations.md",
    "frontend/public/favicon.svg": "images/favicon.svg",
}
"""Files of the repository, and where the site has them."""

_HERE = {page: source for source, page in ELSEWHERE.items()}
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files from elsewhere."""
    for source, target in ELSEWHERE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs asks by name
    """Make the links right for the site; what stands in a block of code is no link."""
    here = page.file.src_uri
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else relinked(part, here) for part in parts)


def relinked(markdown: str, here: str) -> str:
    """The text of the page `here` with its links made right."""
    source = _HERE.get(here, f"docs/{here}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match["text"], match["target"], match["anchor"] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        page = ELSEWHERE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if page is not None:
            return f"[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{anchor})"
        if not (ROOT / path).exists():
            return match[0]  # for mkdocs to complain about
        return text if path in text else f"{text} (`{path}`)"

    return _LINK.sub(link, markdown)
