"""The pages over a real measurement: compressed by the command line, opened by deep link on a fresh server.

What `kick evaluate --json` says and what the pages show must be the same numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from kick_core import jobs, views
from kick_core.cli import main
from tests.browser.conftest import Tab, opener, serving

pytestmark = pytest.mark.browser

RECIPES, TASKS = ("magnitude@0.5", "wanda@0.5"), ("factoid_qa", "multiple_choice", "perplexity")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], Any]]:
    """A cache filled by `kick evaluate pocket`, and what it printed, by recipe and task."""
    cache = tmp_path_factory.mktemp("measured") / "cache"
    words = ["evaluate", "pocket", "dense", *RECIPES, "--limit", "24", "--windows", "8", "--length", "128", "--json"]
    for task in TASKS:
        words += ["--task", task]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main([*words, "--cache", str(cache)]) == 0
    found = json.loads(said.getvalue())["results"]
    return cache, {(row["recipe"], row["task"]): row for row in found}


def headline(row: dict[str, Any]) -> dict[str, Any]:
    return dict(row["scorers"][row["headline"]])


@pytest.mark.parametrize("path", ["/?method=wanda&s=50", "/?method=magnitude&s=50"])
def test_findings(chrome: Any, measured: tuple[Path, dict[tuple[str, str], Any]], path: str) -> None:
    cache, said = measured
    recipe = "wanda@0.5" if "wanda" in path else "magnitude@0.5"
    with serving(cache) as address:
        tab: Tab = opener(chrome, address)().open(path)
        card = f'[data-task][data-recipe="{recipe}"]'  # the slider's other points are there too, hidden
        tab.page.wait_for_selector(card)
        shown = dict(tab.page.eval_on_selector_all(card, "all => all.map(e => [e.dataset.task, +e.dataset.score])"))
        assert set(shown) == set(TASKS)
        for task, score in shown.items():
            assert math.isclose(score, headline(said[recipe, task])["mean"], abs_tol=1e-6), task
        tab.check()
        tab.page.context.close()


def test_own_prompt_answers_as_the_evaluation_did(
    chrome: Any, measured: tuple[Path, dict[tuple[str, str], Any]]
) -> None:
    """The prompt of a measured example, asked as one's own of both models, gets the measured answers."""
    cache, _ = measured
    store = views.open_store(cache)
    frame = views.current(views.scores(store), "pocket-11m")
    rows = frame[frame["task"] == "factoid_qa"].set_index("recipe")
    example = str(views.examples(store, rows.at["wanda@0.5", "run"], rows.at["dense", "run"])["id"].iloc[0])
    detail = views.example(store, rows.at["wanda@0.5", "run"], example)
    with serving(cache) as address:
        place = f"/compare?task=factoid_qa&a=dense&b=wanda@0.5&view=Your+own+prompt&ex={example}"
        tab: Tab = opener(chrome, address)().open(place)
        asked = tab.page.get_by_role("textbox", name="Prompt").input_value()
        assert asked == "\n\n".join(detail.example.prompt)
        tab.page.get_by_role("button", name="Ask both").click()
        tab.page.wait_for_selector('[data-ask][data-state="done"]', timeout=120_000)
        (job,) = [job for job in jobs.jobs(store) if "prompt" in job.spec]
        for recipe in ("dense", "wanda@0.5"):
            said = detail.of(rows.at[recipe, "run"])
            assert said is not None and job.answers[recipe].lstrip().startswith(said.output.text[0])
            tab.page.get_by_text(job.answers[recipe].split()[0]).first.wait_for()
        link = tab.page.url
        assert f"ask={job.id}" in link
        tab.page.goto(link)
        tab.ready().page.wait_for_selector('[data-ask][data-state="done"]')
        tab.check()
        tab.page.context.close()


@pytest.mark.parametrize("page", ["evaluate", "compare", "compress"])
def test_other_pages(chrome: Any, measured: tuple[Path, dict[tuple[str, str], Any]], page: str) -> None:
    cache, said = measured
    against = headline(said["wanda@0.5", "factoid_qa"])["against_dense"]
    path = {
        "evaluate": "/evaluate?task=factoid_qa&b=wanda@0.5",
        "compare": "/compare?task=factoid_qa&a=dense&b=wanda@0.5",
        "compress": "/compress",
    }[page]
    with serving(cache) as address:
        tab: Tab = opener(chrome, address)().open(path)
        if page == "compress":
            tab.page.get_by_text("Artifacts in this cache").wait_for()
        else:
            tab.page.get_by_text(f"broke {against['broke']:.0f}").first.wait_for()
            mean, dense = headline(said["wanda@0.5", "factoid_qa"])["mean"], against["dense"]
            text = tab.text()
            assert f"{100 * mean:.1f} %" in text and f"{100 * dense:.1f} %" in text
            assert not against["fixed"] or f"fixed {against['fixed']:.0f}" in text, "empty filters are not offered"
        tab.check()
        tab.page.context.close()
