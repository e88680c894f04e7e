"""The documentation site: it is built without a complaint, hangs together, and needs nobody else."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import TimeoutError, expect  # noqa: A004 - the browser's own

ROOT = Path(__file__).parents[2]
PAGES_ELSEWHERE = ("CHANGELOG.md", "CONTRIBUTING.md", "examples/tenant-service/README.md", "ops/README.md")
# Links that a browser follows only when somebody clicks them.
CLICKED = {"a", "area"}


def build(root, target):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


class Loads(HTMLParser):
    """What a page loads by itself."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in {"src", "href", "srcset", "data", "poster", "action"} and tag not in CLICKED:
                self.found.append(value)
            elif name == "style":
                self.found += re.findall(r"url\(([^)]*)\)", value)


def test_no_page_loads_anything_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "quickstart.html", "changelog.html", "operations.html"} <= {page.name for page in pages}
    for page in pages:
        loaded = Loads(page.read_text()).found
        assert any(path.endswith(".css") for path in loaded), page
        assert [path for path in loaded if urlsplit(path).scheme or urlsplit(path).netloc] == [], page
    for sheet in site.rglob("*.css"):
        loaded = re.findall(r"(?:@import|url\()\s*['\"]?([^'\")]+)", sheet.read_text())
        assert [path for path in loaded if not path.startswith("data:") and "//" in path] == [], sheet


def test_lists_and_tables_are_lists_and_tables(site):
    """On the site a list needs an empty line before it, and four spaces to be inside another: else it is text."""
    for page in sorted(site.rglob("*.html")):
        for paragraph in re.findall(r"<p>(.*?)</p>", page.read_text(), re.DOTALL):
            assert not re.search(r"^\s*(?:[-*|]|\d+\.|```) ", paragraph, re.MULTILINE), (page.name, paragraph)
    for page in [
        *ROOT.glob("docs/**/*.md"),
        ROOT / "ops/README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
    ]:
        text = page.read_text()
        assert not re.search(r"^ {1,3}[-*] ", text, re.MULTILINE), page
        assert len(re.findall(r"^```", text, re.MULTILINE)) % 2 == 0, page


def test_pages_that_stand_elsewhere_are_part_of_it_with_links_that_fit(site):
    assert 'href="operations.html"' in (site / "architecture.html").read_text()
    assert 'href="guarantees.html"' in (site / "changelog.html").read_text()
    assert 'href="settings.html"' in (site / "operations.html").read_text()
    # What is no page is named, not linked.
    assert "<code>bench/peers/node/server.js</code>" in (site / "performance.html").read_text()


@pytest.fixture
def copy(tmp_path):
    """The sources of the site, to be spoiled."""
    for name in ("docs", "frontend/public"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "scripts/site.py", *PAGES_ELSEWHERE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_link_that_leads_nowhere_and_a_page_without_a_place_stop_the_build(copy):
    with (copy / "docs" / "concepts.md").open("a") as page:
        page.write("\n[a](no-page.md) [b](guarantees.md#no-heading) [c](../ops/no-file.sh) ![d](images/no.png)\n")
    (copy / "docs" / "stray.md").write_text("# Nobody leads here\n")
    done = build(copy, copy / "site")
    assert done.returncode == 1
    for what in ("no-page.md", "#no-heading", "no-file.sh", "images/no.png", "stray.md"):
        assert what in done.stderr, what


@pytest.fixture
def served(site):
    """The site's address at a server that knows of nothing else."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def search(page, words, found):
    """Type into the search until it answers: what is typed before its script has started is lost."""
    box = page.get_by_role("textbox", name="Search")
    for attempt in range(20):
        await box.fill("")
        # Key by key: the page may miss a text that is there at once, in place of another.
        await box.press_sequentially(words)
        with contextlib.suppress(TimeoutError):
            await found.wait_for(timeout=2000 + 500 * attempt)
            return
    pytest.fail("the search does not answer")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_browser_finds_things_in_it_and_asks_nobody_else(browser, served):
    page = await browser.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    await page.goto(f"{served}/index.html")
    found = page.locator(".md-search-result__link", has_text="Revocation is exact").first
    await search(page, "revocation is exact", found)
    await found.click()
    await expect(page).to_have_url(re.compile(r"/guarantees\.html.*#2-revocation-is-exact$"))
    await page.goto(f"{served}/concepts.html")
    picture = page.get_by_role("img", name="A tenant has a MongoDB database")
    assert await picture.evaluate("image => image.complete && image.naturalWidth") == 1000
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(served).netloc}
    assert complaints == []
    await page.close()
