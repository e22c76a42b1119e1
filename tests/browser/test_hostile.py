"""Attacks in every prompt, gold, answer and subject: no script runs, nothing is fetched, nothing is hidden."""

from __future__ import annotations

from typing import Any

import pytest

from kick_core import views
from tests import synthetic
from tests.browser.conftest import opener, serving

pytestmark = pytest.mark.browser

PAGES = (
    "/?s=50&method=magnitude",
    "/compress",
    "/evaluate?task=multiple_choice&b=magnitude@0.5",
    "/evaluate?task=instructions&b=magnitude@0.5",
    "/compare?task=summarization&b=magnitude@0.5",
)


def test_hostile_text_is_inert(chrome: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = synthetic.make(
        tmp_path_factory.mktemp("hostile") / "cache",
        recipes=("dense", "magnitude@0.5", "wanda@0.5,x=![x](https://evil.example/option.png)"),
        task_names=("perplexity", "factoid_qa", "multiple_choice", "instructions", "summarization"),
        n=16,
        hostile=True,
        model="pocket-11m![x](https://evil.example/name.png)<img src=x onerror='window.hacked=1'>",
    )
    with serving(store.root) as address:
        tab = opener(chrome, address)()
        for path in PAGES:
            tab.open(path).page.get_by_test_id("stTopNavLink").first.wait_for()
            tab.page.wait_for_timeout(400)
            tab.page.mouse.move(700, 500)
            assert tab.page.evaluate("window.hacked === undefined"), path
            assert tab.page.locator("img[src*=evil], iframe[srcdoc], a[href^=javascript]").count() == 0, path
            assert tab.page.evaluate("getComputedStyle(document.body).display") == "block", path
        page = tmp_path_factory.mktemp("report") / "report.html"
        page.write_text(views.report(store, str(views.models(store)[0])))
        tab.page.goto(page.as_uri())
        tab.page.wait_for_selector("#overlay .main-svg")
        assert tab.page.evaluate("window.hacked === undefined && document.images.length === 0")
        assert "<script>window.hacked=1</script>" in tab.text()
        tab.faults = [fault for fault in tab.faults if page.as_uri() not in fault]
        tab.open(PAGES[-1])
        assert "<script>window.hacked=1</script>" in tab.text(), "the attack itself was shown, as text"
        tab.check()
        tab.page.context.close()
