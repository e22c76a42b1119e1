"""Pictures of every page, light and dark: `python -m tests.browser.screenshots CACHE FOLDER`.

For the README and for looking at: numbers can be right on a page that nobody can read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import QUIET, Tab, chromium, serving

PAGES = {
    "findings": "/",
    "compress": "/compress",
    "evaluate": "/evaluate",
    "compare": "/compare",
}


def shoot(cache: Path, folder: Path, width: int = 1440) -> list[Path]:
    """Full-page pictures, one a page and scheme; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with sync_playwright() as playwright, serving(cache) as address:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(QUIET))
        for scheme in ("light", "dark"):
            page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 1000}).new_page()
            tab = Tab(page, address)
            for name, path in PAGES.items():
                page.set_viewport_size({"width": width, "height": 1000})
                tab.open(path)
                page.wait_for_timeout(1200)
                tall = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
                page.set_viewport_size({"width": width, "height": min(tall, 5000)})
                page.wait_for_timeout(800)
                made.append(folder / f"{name}-{scheme}.png")
                page.screenshot(path=made[-1])
                if (name, scheme) == ("findings", "light"):  # the picture in the README
                    made.append(folder / "findings.png")
                    page.screenshot(path=made[-1], clip={"x": 0, "y": 0, "width": width, "height": 960})
        browser.close()
    return made


if __name__ == "__main__":
    for path in shoot(Path(sys.argv[1]), Path(sys.argv[2])):
        print(path)
