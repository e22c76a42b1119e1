"""Pictures of the real app over a cache: `python -m tests.browser.screenshots CACHE FOLDER [--readme]`.

Every page whole, light and dark, for looking at: numbers can be right on a page that nobody can read. With
`--readme` the README's pictures instead: one of each page, and `walk.webp`, a short walk through the app, each
frame a screenshot after a real click or key.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.conftest import Tab, serving
from tests.conftest import QUIET, chromium

PAGES = {
    "findings": "/",
    "compress": "/compress?make=wanda",
    "evaluate": "/evaluate",
    "compare": "/compare",
    "size": "/compare?view=Same+size",
}
SIZE = {"width": 1440, "height": 960}


def _tab(browser: Any, address: str, scheme: str = "light") -> Tab:
    page = browser.new_context(color_scheme=scheme, viewport=SIZE).new_page()
    page.set_default_timeout(90_000)
    return Tab(page, address)


def whole(browser: Any, address: str, folder: Path) -> Iterator[Path]:
    """Every page from top to bottom in both schemes."""
    for scheme in ("light", "dark"):
        tab = _tab(browser, address, scheme)
        for name, path in (PAGES | {"families": "/compare?view=Families"}).items():
            tab.page.set_viewport_size(SIZE)
            _settled(tab.open(path))
            tall = tab.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
            tab.page.set_viewport_size({**SIZE, "height": min(tall, 5000)})
            _settled(tab)
            yield folder / f"{name}-{scheme}.png"
            tab.page.screenshot(path=folder / f"{name}-{scheme}.png")


def readme(browser: Any, address: str, folder: Path) -> Iterator[Path]:
    """The upper part of every page, and the walk."""
    tab = _tab(browser, address)
    for name, path in PAGES.items():
        _settled(tab.open(path))
        _small(tab.page.screenshot()).save(folder / f"{name}.png", optimize=True)
        yield folder / f"{name}.png"
    frames = [_small(shot, 960) for shot in walk(_tab(browser, address))]
    frames[0].save(
        folder / "walk.webp", save_all=True, append_images=frames[1:], duration=1400, loop=0, quality=38, method=6
    )
    yield folder / "walk.webp"


def walk(tab: Tab) -> Iterator[bytes]:
    """From the finding to single answers: a slider, facts being forgotten, one that broke, its film strip, sizes."""
    page = tab.page
    for place in ("The paper's claims", "Forgetting, question by question"):
        _settled(tab.open("/?s=20"))
        slider = page.get_by_role("slider")
        slider.focus()
        _top(tab, place)
        yield page.screenshot()
        before = ""
        while before != page.url:  # until the slider stands at its end
            before = page.url
            page.keyboard.press("ArrowRight")
            _settled(tab)
            if before != page.url:
                yield page.screenshot()
    _settled(tab.open("/"))  # answers that broke where perplexity tells least are still sentences
    page.get_by_text("that broke").last.click()
    page.get_by_text("Example by example").wait_for()
    _settled(tab)
    yield page.screenshot()
    page.get_by_text("Example by example").scroll_into_view_if_needed()
    page.keyboard.press("ArrowRight")
    _settled(tab)
    _bottom(tab)
    yield page.screenshot()
    page.get_by_test_id("stTopNavLink").nth(3).click()
    page.get_by_text("One example").wait_for()
    _settled(tab)
    yield page.screenshot()
    _bottom(tab)
    yield page.screenshot()
    page.get_by_role("radio", name="Same size").click()
    page.get_by_text("What a megabyte buys").wait_for()
    _settled(tab)
    yield page.screenshot()


def _settled(tab: Tab) -> None:
    tab.ready().page.wait_for_timeout(1300)


def _top(tab: Tab, words: str) -> None:
    """Scroll until the heading is at the top, unless it is seen without."""
    here = tab.page.get_by_role("heading", name=words).first
    box = here.bounding_box()
    if box is None or box["y"] + box["height"] > SIZE["height"] / 2:
        here.evaluate("node => { node.style.scrollMarginTop = '70px'; node.scrollIntoView() }")
        tab.page.wait_for_timeout(600)


def _bottom(tab: Tab) -> None:
    tab.page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 1e6)")
    tab.page.wait_for_timeout(400)


def _small(shot: bytes, width: int = 1200) -> Image.Image:
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    given.add_argument("cache", type=Path)
    given.add_argument("folder", type=Path)
    given.add_argument("--readme", action="store_true")
    options = given.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, serving(options.cache) as address:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(QUIET))
        for path in (readme if options.readme else whole)(browser, address, options.folder):
            print(path)
        browser.close()


if __name__ == "__main__":
    main()
