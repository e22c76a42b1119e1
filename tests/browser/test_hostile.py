"""Attacks in every prompt, gold, answer and subject: no script runs, nothing is fetched, nothing is hidden."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from kick_core import jobs, views
from kick_core.store import Store
from tests import synthetic
from tests.browser.conftest import opener, serving

pytestmark = pytest.mark.browser

PAGES = (
    "/?s=50&method=magnitude",
    "/compress",
    "/evaluate?task=multiple_choice&b=magnitude@0.5",
    "/evaluate?task=instructions&b=magnitude@0.5",
    "/evaluate?task=factoid_qa&b=magnitude@0.5&slice=%3Cimg+src%3Dx+onerror%3D%27window.hacked%3D1%27%3E&kind=%3Cb%3E",
    "/compare?view=Same+size&task=factoid_qa&b=magnitude@0.5",
    "/compare?view=Your+own+prompt&ask={ask}",
    "/compare?view=Families&b=magnitude@0.5",
    "/compress?matrix=%3Cscript%3Ewindow.hacked=1%3C/script%3E&model=%3Cimg+src%3Dx+onerror%3D%27window.hacked%3D1%27%3E",
    "/compare?task=summarization&b=magnitude@0.5",
)


def hostile_prompt(store: Store) -> str:
    """A prompt that was asked and answered with attacks, and a job that failed with one; the prompt's id."""
    names = []
    for state in ("done", "failed"):
        wanted = jobs.prompt("pocket-11m", ["dense", "magnitude@0.5"], f"{state} {synthetic.HOSTILE}")
        folder = store.root / "jobs" / jobs.job_id(wanted)
        folder.mkdir(parents=True)
        said = {recipe: f"{synthetic.HOSTILE} {recipe}" for recipe in ("dense", "magnitude@0.5")}
        found = jobs.Job(folder.name, wanted.to_json(), state=state, message=synthetic.HOSTILE, answers=said)
        (folder / "state.json").write_text(json.dumps(asdict(found)))
        (folder / "log.txt").write_text(synthetic.HOSTILE)
        names.append(folder.name)
    return names[0]


def test_hostile_text_is_inert(chrome: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = synthetic.make(
        tmp_path_factory.mktemp("hostile") / "cache",
        recipes=("dense", "magnitude@0.5", "wanda@0.5,x=![x](https://evil.example/option.png)"),
        task_names=("perplexity", "factoid_qa", "multiple_choice", "instructions", "summarization"),
        n=16,
        hostile=True,
        model="pocket-11m![x](https://evil.example/name.png)<img src=x onerror='window.hacked=1'>",
    )
    synthetic.make(
        store.root, recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa",), n=8, hostile=True,
        model=f"lab/other{synthetic.HOSTILE}",
    )  # fmt: skip
    ask = hostile_prompt(store)
    with serving(store.root) as address:
        tab = opener(chrome, address)()
        for path in (page.format(ask=ask) for page in PAGES):
            tab.open(path).page.get_by_test_id("stTopNavLink").first.wait_for()
            tab.page.wait_for_timeout(400)
            for fold in tab.page.get_by_test_id("stExpander").all():
                fold.locator("summary").click()
            for share in tab.page.get_by_test_id("stPopoverButton").filter(visible=True).all():
                share.click()
            for y in (300, 500, 700):
                tab.page.mouse.move(500, y, steps=4)
                tab.page.wait_for_timeout(150)
            assert tab.page.evaluate("window.hacked === undefined"), path
            assert tab.page.locator("img[src*=evil], iframe[srcdoc], a[href^=javascript]").count() == 0, path
            assert tab.page.evaluate("getComputedStyle(document.body).display") == "block", path
        page = tmp_path_factory.mktemp("report") / "report.html"
        page.write_text(views.report(store, str(views.models(store)[0])))
        tab.page.goto(page.as_uri())
        tab.page.wait_for_selector(".poster .marker", state="attached")
        assert tab.page.evaluate("window.hacked === undefined && document.images.length === 0")
        assert "<script>window.hacked=1</script>" in tab.text()
        tab.faults = [fault for fault in tab.faults if page.as_uri() not in fault]
        tab.open(PAGES[-1])
        assert "<script>window.hacked=1</script>" in tab.text(), "the attack itself was shown, as text"
        tab.check()
        tab.page.context.close()
