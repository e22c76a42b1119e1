"""A real server, a real browser. Skipped, with the reason, where chromium or playwright is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kick_core.store import Store
from tests import synthetic
from tests.served import started

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def serving(cache: Path, *flags: str, **environment: str) -> Iterator[str]:
    """`streamlit run app.py` on a free port over a cache; the address. Later flags win over the port's."""
    with started(cache, *flags, **environment) as (port, _):
        yield f"http://127.0.0.1:{port}"


class Tab:
    """A page that remembers what must never happen: script errors and requests to elsewhere."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address, self.faults = page, address, []
        page.on("pageerror", lambda error: self.faults.append(f"script error: {error}"))
        page.on("request", self._look)

    def _look(self, request: Any) -> None:
        if not request.url.startswith((self.address, self.address.replace("http", "ws"), "data:", "blob:")):
            self.faults.append(f"request to {request.url}")

    def open(self, path: str) -> Tab:
        self.page.goto(self.address + path)
        return self.ready()

    def ready(self) -> Tab:
        """Until the script has run and nothing is a placeholder."""
        self.page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=90_000)
        self.page.wait_for_function("!document.querySelector('[data-testid=stSkeleton], [data-testid=stAppSkeleton]')")
        return self

    def text(self) -> str:
        return str(self.page.locator("body").inner_text())

    def check(self) -> None:
        assert self.page.get_by_test_id("stException").count() == 0
        assert self.faults == []


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.make(tmp_path_factory.mktemp("browser") / "cache", recipes=synthetic.FEW, n=40)


@pytest.fixture(scope="session")
def server(filled: Store) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with started(filled.root) as found:
        yield found


@pytest.fixture(scope="session")
def address(server: tuple[int, subprocess.Popen[bytes]]) -> str:
    return f"http://127.0.0.1:{server[0]}"


@pytest.fixture(scope="session")
def one_tab(chrome: Any, address: str) -> Iterator[Tab]:
    found = opener(chrome, address)()
    yield found
    found.page.context.close()


@pytest.fixture
def tab(one_tab: Tab) -> Iterator[Tab]:
    """The same tab for all tests (the browser keeps its five megabytes of scripts), a new session at each `open`."""
    one_tab.faults.clear()
    yield one_tab
    one_tab.check()


def opener(chrome: Any, address: str) -> Callable[..., Tab]:
    """Opens tabs, each in a context of its own."""

    def make(**options: Any) -> Tab:
        context = chrome.new_context(viewport={"width": 1440, "height": 1000}, **options)
        page = context.new_page()
        page.set_default_timeout(60_000)
        return Tab(page, address)

    return make
