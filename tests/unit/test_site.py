"""The docs site is built, as `make docs` does, and what it links to within itself is there."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import distjob
from distjob import aio, hooks

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
pytestmark = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the Makefile builds it, but for the place."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^docs:.*\n\t\$\(BIN\)/python (.*)$", makefile, re.MULTILINE)
    assert recipe
    *words, _ = recipe[1].split()
    assert {"-W", "-n"} <= set(words)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, *words, "-d", folder / "doctrees", folder / "html"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page of the site links to, what it loads, and what can be linked to in it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.places: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.places.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        elif source := found.get("src") or (tag == "link" and found.get("href")):
            self.loads.add(source)


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {file: Page(file) for file in site.rglob("*.html")}
    assert len(pages) > 20
    dead = []
    for file, page in pages.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            place = unquote(parts.fragment)
            lacks = target in pages and place and place not in pages[target].places
            if not target.exists() or lacks:
                dead.append(f"{file.relative_to(site)}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for file in site.rglob("*.html"):
        loaded = [one for one in Page(file).loads if urlsplit(one).netloc]
        assert loaded == [], file


def test_every_page_is_in_it(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).exists(), page


def test_the_reference_tells_of_all_that_is_public(site: Path) -> None:
    told = {place for file in site.rglob("*.html") for place in Page(file).places}
    public = {f"distjob.{name}" for name in distjob.__all__ if name != "aio"}
    public |= {f"distjob.aio.{name}" for name in aio.__all__}
    public |= {f"distjob.hooks.{n}" for n in hooks.__all__ if isinstance(getattr(hooks, n), type)}
    for client in (distjob.Client, aio.AsyncClient):
        home = "distjob.aio" if client is aio.AsyncClient else "distjob"
        public |= {f"{home}.{client.__name__}.{n}" for n in vars(client) if not n.startswith("_")}
    assert public - told == set()


def test_asyncios_methods_are_told_in_full(site: Path) -> None:
    """Their docstrings are copied at run time, from the blocking ones."""
    text = (site / "reference" / "api" / "asyncio.html").read_text()
    assert "one deadline for everything it waits for" in text
