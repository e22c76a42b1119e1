"""What only a browser shows: links on a fresh server, sliders and the URL, clicks, keys, reloads in mid-job."""

from __future__ import annotations

import math
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kick_core import jobs, views
from kick_core.store import Store, open_store
from tests import synthetic
from tests.browser.conftest import Tab, opener, serving
from tests.jobs.test_jobs import Request, start, until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def frame(filled: Store) -> pd.DataFrame:
    return views.current(views.scores(filled), synthetic.MODEL)


def cell(frame: pd.DataFrame, recipe: str, task: str) -> pd.Series:
    return frame[(frame["recipe"] == recipe) & (frame["task"] == task)].iloc[0]


def cards(tab: Tab) -> dict[str, float]:
    found = tab.page.eval_on_selector_all(
        "[data-step]:not([hidden]) [data-task]", "all => all.map(e => [e.dataset.task, +e.dataset.score])"
    )
    return {name: score for name, score in found}


def headline(tab: Tab, text: str) -> None:
    """Until the page's headline is this one."""
    tab.page.locator("h1").filter(has_text=text).get_by_text(text, exact=True).wait_for()


LINKS = {
    "/evaluate?task=retrieval_qa_closed&b=wanda@0.5": "wanda 50 %:",
    "/compare?task=factoid_qa&a=magnitude@0.5&b=wanda@0.5": "A magnitude 50 %, B wanda 50 %",
}


@pytest.mark.parametrize("path", LINKS)
def test_deep_link_on_a_fresh_server(chrome: Any, filled: Store, path: str) -> None:
    """The first visit to a fresh server goes straight to a page: right menu, right content, URL kept."""
    with serving(filled.root) as address:
        tab = opener(chrome, address)().open(path)
        tab.page.get_by_text(LINKS[path], exact=False).first.wait_for()
        menu = tab.page.get_by_test_id("stTopNavLink")
        assert [link.inner_text().split("\n")[-1] for link in menu.all()] == [
            "Findings",
            "Compress",
            "Evaluate",
            "Compare",
        ]
        for wanted in path.partition("?")[2].split("&"):
            assert wanted.replace("@", "%40") in tab.page.url or wanted in tab.page.url
        tab.check()
        tab.page.context.close()


def test_numbers_are_the_views(tab: Tab, frame: pd.DataFrame) -> None:
    headline(tab.open("/?s=50&method=wanda"), views.headline(frame, "wanda@0.5"))
    shown = cards(tab)
    assert set(shown) == set(frame["task"])
    for task, score in shown.items():
        assert math.isclose(score, cell(frame, "wanda@0.5", task)["score"], abs_tol=1e-6)


def marker(tab: Tab) -> list[float]:
    """Where the charts' lines stand, in percent, read off the axis."""
    found: list[float] = tab.page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot [data-line]')].map(line => {
        const l = line.parentElement._fullLayout, x = l['xaxis' + line.dataset.line.slice(6)]
        return Math.round(x.p2d(parseFloat(line.style.left) + 1 - x._offset)) })"""
    )
    return found


def test_the_slider_moves_url_and_cards(tab: Tab, frame: pd.DataFrame) -> None:
    headline(tab.open("/?method=magnitude&s=50"), views.headline(frame, "magnitude@0.5"))
    slider = tab.page.get_by_role("slider")
    slider.focus()
    slider.press("ArrowRight")
    headline(tab, views.headline(frame, "magnitude@0.7"))
    tab.ready()
    tab.page.wait_for_function("location.search.includes('s=70')")
    assert math.isclose(cards(tab)["factoid_qa"], cell(frame, "magnitude@0.7", "factoid_qa")["score"], abs_tol=1e-6)
    tab.page.locator(".st-key-panels-scroll").scroll_into_view_if_needed()  # drawn when somebody comes near it
    tab.page.wait_for_selector(".st-key-panels [data-line]", state="attached")
    assert set(marker(tab)) == {70}
    tab.page.reload()
    headline(tab.ready(), views.headline(frame, "magnitude@0.7"))


def test_play_degrades_everything_together(tab: Tab, frame: pd.DataFrame) -> None:
    headline(tab.open("/?method=magnitude&s=0"), "Dense: nothing is compressed, so everything is kept.")
    tab.page.get_by_role("button", name="▶ Play").click()
    for percent in (30, 50, 70):
        headline(tab, views.headline(frame, f"magnitude@0.{percent // 10}"))
    tab.page.get_by_role("button", name="▶ Play").wait_for()
    tab.page.wait_for_function("location.search.includes('s=70')")
    assert tab.page.locator(".forgetting td.later").count() == 0 and tab.page.locator(".forgetting td.wrong").count()


WHITE = """() => {
  window.white = 0
  const look = () => { window.white += !document.querySelector('.kick h1'); requestAnimationFrame(look) }
  look()
}"""
"""Counts frames in which there is no headline."""


def test_back_and_forward_are_one_entry_a_page(chrome: Any, address: str) -> None:
    tab = opener(chrome, address)().open("/?method=wanda&s=50")
    menu = tab.page.get_by_test_id("stTopNavLink")
    tab.page.wait_for_function("location.search.includes('protocol=')")
    before = tab.page.evaluate("history.length")
    tab.page.evaluate(WHITE)
    for place, name in ((2, "/evaluate"), (3, "/compare"), (1, "/compress")):
        menu.nth(place).click()
        tab.page.wait_for_function("path => location.pathname === path && location.search.includes('model=')", arg=name)
        tab.ready()
    assert tab.page.evaluate("history.length") == before + 3
    assert tab.page.evaluate("window.white") == 0, "the old page stays in view until the new one has its headline"
    for move, name, text in (
        (tab.page.go_back, "/compare", "Compare"), (tab.page.go_back, "/evaluate", "Evaluate"),
        (tab.page.go_back, "/", "Half of the weights pruned by wanda"), (tab.page.go_forward, "/evaluate", "Evaluate"),
    ):  # fmt: skip
        move()
        tab.page.locator("h1", has_text=text).wait_for()
        assert tab.page.evaluate("location.pathname") == name
        tab.ready()
    tab.check()
    tab.page.context.close()


@contextmanager
def still(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """The server answers nothing meanwhile, as under load: what the browser sends waits."""
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def test_nothing_that_is_pressed_while_a_page_opens_blanks_it(
    tab: Tab, server: tuple[int, subprocess.Popen[bytes]]
) -> None:
    """A request of the page that is left, sent after the click on a link, would be run after the new page."""
    menu, page = tab.page.get_by_test_id("stTopNavLink"), tab.page
    tab.open("/?method=magnitude&s=0")
    page.get_by_role("button", name="▶ Play").click()
    with still(server[1]):
        menu.nth(2).click()
        page.wait_for_timeout(1500)  # two steps of Play
    page.locator(".stepper").wait_for()
    tab.ready()
    with still(server[1]):
        menu.nth(3).click()
        for key in ("j", "Tab", "ArrowRight"):
            page.keyboard.press(key)
        page.wait_for_timeout(300)
    page.get_by_text("One example").wait_for()
    tab.ready()
    with still(server[1]):
        page.evaluate("history.back()")
        page.wait_for_timeout(300)
        page.keyboard.press("j")
        page.wait_for_timeout(300)
    page.get_by_text("Example by example").wait_for()
    page.wait_for_timeout(500)
    assert tab.ready().page.locator("h1").inner_text() == "Evaluate"
    leaving = "document.documentElement.dataset.leaving ?? null"
    assert page.evaluate(leaving) is None
    with still(server[1]):
        menu.nth(1).click()
        menu.nth(3).click()
        page.evaluate("document.querySelector('.kick h1').remove()")  # as when the first link's page comes
        page.wait_for_timeout(300)
        assert page.evaluate(leaving) == "compare", "the page that was asked for last is not there yet"
    page.get_by_text("One example").wait_for()
    page.wait_for_function(f"({leaving}) === null")


def test_a_link_to_what_is_not_there_says_so(tab: Tab) -> None:
    tab.open("/evaluate?task=cooking&b=nonsense").page.get_by_text("names the task cooking").wait_for()
    assert "names the recipe nonsense, which is no recipe" in tab.text()
    tab.open("/evaluate?task=factoid_qa&b=wanda@0.45").page.get_by_text("wanda 45 %", exact=True).first.wait_for()
    tab.page.get_by_text("has not been evaluated on Factoid QA").wait_for()
    tab.page.get_by_role("button", name="Measure it now").wait_for()
    assert "b=wanda%400.45" in tab.ready().page.url


def test_the_address_says_everything_that_compress_shows(tab: Tab) -> None:
    tab.open("/compress?make=gptq&bits=3&group=64").page.get_by_text("recipe gptq@3bit,group=64").wait_for()
    tab.page.get_by_role("radio", name="8", exact=True).click()
    tab.page.get_by_text("recipe gptq@8bit,group=64").wait_for()
    tab.page.wait_for_function("location.search.includes('bits=8')")
    tab.ready().page.reload()
    tab.page.get_by_text("recipe gptq@8bit,group=64").wait_for()


def test_a_cell_of_the_heat_map_opens_its_failures(tab: Tab, frame: pd.DataFrame) -> None:
    row = cell(frame, "magnitude@0.7", "factoid_qa")
    tab.open("/?method=magnitude&s=50").page.locator('.heat a[title^="magnitude 70 %, Factoid QA"]').click()
    tab.page.get_by_text(f"broke {row['broke']:.0f}", exact=True).wait_for()
    assert "/evaluate" in tab.ready().page.url and "b=magnitude%400.7" in tab.page.url and "kind=broke" in tab.page.url


def test_from_the_finding_to_its_example(tab: Tab) -> None:
    tab.open("/?s=50&method=magnitude")
    tab.page.get_by_text("See all that broke here").click()
    tab.page.get_by_text("Example by example").wait_for()
    tab.page.wait_for_function("location.search.includes('ex=')")
    assert "b=magnitude%400.5" in tab.page.url and "kind=broke" in tab.page.url and "/evaluate" in tab.page.url


def test_a_click_on_a_point_opens_its_examples(tab: Tab, frame: pd.DataFrame) -> None:
    tab.open("/evaluate?task=factoid_qa&b=magnitude@0.5").page.get_by_text("magnitude 50 %:").wait_for()
    tab.page.wait_for_selector(".st-key-curves .scatterlayer .trace")
    tab.page.wait_for_timeout(500)
    y = cell(frame, "magnitude@0.7", "factoid_qa")["score"]
    place = tab.page.evaluate(
        """y => { const g = document.querySelector('.st-key-curves .js-plotly-plot')
        const r = g.getBoundingClientRect(), l = g._fullLayout
        return [r.left + l.xaxis._offset + l.xaxis.d2p(70), r.top + l.yaxis._offset + l.yaxis.d2p(y)] }""",
        y,
    )
    tab.page.mouse.move(place[0] - 8, place[1] - 8)
    tab.page.mouse.move(*place, steps=3)
    tab.page.wait_for_timeout(300)
    tab.page.mouse.click(*place)
    tab.page.get_by_text("magnitude 70 %:").wait_for()
    assert "b=magnitude%400.7" in tab.ready().page.url


def test_ten_presses_are_ten_steps(tab: Tab) -> None:
    """Arrows and j/k, also while a choice has the focus, and clicks; none is lost, and the counted one opens.

    The next example is in view at once, before the server has drawn it.
    """
    tab.open("/evaluate?task=factoid_qa&b=magnitude@0.7&kind=broke").page.locator(".stepper").wait_for()
    counter = tab.page.locator(".stepper output")
    count = int(counter.inner_text().split()[-1])
    assert count > 12 and counter.inner_text() == f"1 of {count}"
    tab.page.locator(".st-key-task input").focus()
    for key in ("ArrowRight",) * 7 + ("k",) * 2 + ("ArrowRight",) * 5:
        tab.page.keyboard.press(key)
    assert counter.inner_text() == f"11 of {count}"
    wanted = tab.page.evaluate("location.search")
    tab.page.wait_for_function("old => location.search !== old", arg=wanted)
    tab.ready().page.wait_for_timeout(1500)
    assert counter.inner_text() == f"11 of {count}"
    opened = re.search(r"ex=([\w-]+)", tab.page.url)
    assert opened and f"{opened[1]} · " in tab.text()
    table = tab.page.locator(".stDataFrameGlideDataEditor").first
    table.click(position={"x": 300, "y": 38 + 35 * 2 + 17})  # a cell of the third row
    counter.filter(has_text=f"3 of {count}").wait_for()
    tab.ready()
    for place in (4, 5):
        tab.page.get_by_role("button", name="Next").click()
        assert counter.inner_text() == f"{place} of {count}"
        tab.ready().page.wait_for_timeout(500)
    at_once = """() => {
        document.dispatchEvent(new KeyboardEvent('keydown', { key: 'j' }))
        return document.querySelector('[data-example]:not([hidden])').dataset.example
    }"""
    before, shown = re.search(r"ex=([\w-]+)", tab.page.url), tab.page.evaluate(at_once)
    assert before and shown != before[1]
    tab.page.wait_for_function("ex => new URL(location).searchParams.get('ex') === ex", arg=shown)


def test_menu_keeps_method_and_sparsity(tab: Tab) -> None:
    tab.open("/?s=70&method=wanda&model=pocket-11m").page.get_by_test_id("stTopNavLink").nth(2).click()
    tab.page.get_by_text("Example by example").wait_for()
    tab.page.get_by_text("wanda 50 %:").wait_for()  # wanda was not measured at 70 %: the nearest one
    tab.page.get_by_test_id("stTopNavLink").nth(0).click()
    tab.page.locator("h1", has_text="by wanda").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_and_a_phone(chrome: Any, address: str, scheme: str) -> None:
    tab = opener(chrome, address)(color_scheme=scheme, user_agent="Mozilla/5.0 (Linux; Android 14) Chrome/130 Mobile")
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.open("/").page.locator("h1", has_text="of the weights pruned").wait_for()
    tab.page.wait_for_selector(".js-plotly-plot")
    wide = tab.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth - innerWidth")
    assert wide <= 1, "the page scrolls sideways on a phone"
    names = "[...document.querySelectorAll('.st-key-overlay :is(.legendtext, .annotation-text)')]"
    ends = tab.page.evaluate(f"{names}.map(name => name.getBoundingClientRect().right)")
    assert ends and max(ends) <= 390, "the names of the lines lie inside the window"
    colour = tab.page.evaluate("getComputedStyle(document.querySelector('.kick .bad')).color")
    assert colour == {"light": "rgb(179, 54, 43)", "dark": "rgb(255, 143, 132)"}[scheme]
    tab.check()
    tab.page.context.close()


def test_a_job_lives_through_a_reload_and_is_cancelled(tab: Tab, filled: Store) -> None:
    name = start(filled, Request("pocket-11m", steps=300, pause=0.1)).id
    try:
        tab.open("/compress").page.wait_for_selector(f'[data-job="{name}"][data-state="running"]')
        until(filled, name, lambda job: job.done >= 5)
        tab.page.reload()
        tab.page.wait_for_selector(f'[data-job="{name}"][data-state="running"]')
        tab.page.get_by_text(re.compile(r"block \d+ of 300")).wait_for()
        tab.page.get_by_role("button", name="Cancel").click()
        tab.page.wait_for_selector(f'[data-job="{name}"][data-state="cancelled"]')
        assert jobs.job(filled, name).state == "cancelled"
    finally:
        jobs.cancel(filled, name)
        until(filled, name, lambda job: not job.active)


def point(tab: Tab, trace: str, at: int = 0) -> list[float]:
    """Where on the screen the nth point of the first trace of this name lies, and what it carries."""
    tab.page.wait_for_function(
        "name => [...document.querySelectorAll('.js-plotly-plot')].some(g => g.data?.some(t => t.name == name))",
        arg=trace,
    )
    tab.page.wait_for_timeout(500)
    return tab.page.evaluate(
        """([name, at]) => {
        const g = [...document.querySelectorAll('.js-plotly-plot')].find(g => g.data?.some(t => t.name == name))
        g.scrollIntoView({block: 'center'})
        const t = g.data.find(t => t.name == name), r = g.getBoundingClientRect(), l = g._fullLayout
        const x = t.orientation == 'h' ? t.x[at] / 2 : t.x[at]
        return [r.left + l.xaxis._offset + l.xaxis.d2p(x), r.top + l.yaxis._offset + l.yaxis.d2p(t.y[at]),
                t.customdata[at]] }""",
        [trace, at],
    )


def click_at(tab: Tab, x: float, y: float) -> None:
    """Plotly wants to see the mouse come."""
    tab.page.mouse.move(x - 7, y - 5)
    tab.page.mouse.move(x, y, steps=3)
    tab.page.wait_for_timeout(300)
    tab.page.mouse.click(x, y)


def test_a_hole_of_the_grid_asks_before_it_starts(tab: Tab, filled: Store) -> None:
    gone = views.current(views.scores(filled), synthetic.MODEL)
    folder = filled.folder("results", cell(gone, "rtn@4bit", "instructions")["run"])
    folder.rename(filled.root / "aside")
    try:
        tab.open("/evaluate?task=factoid_qa&b=magnitude@0.5").page.get_by_text("What is measured").click()
        x, y, (recipe, task, state) = point(tab, "not measured")
        assert (recipe, task, state) == ("rtn@4bit", "instructions", "missing")
        click_at(tab, x, y)
        tab.page.get_by_text("has not been evaluated on Instructions").wait_for()
        assert not [job for job in jobs.jobs(filled) if "recipes" in job.spec], "a click alone starts nothing"
        tab.page.get_by_role("button", name="Measure it now").click()
        tab.page.wait_for_selector('[data-job][data-state="running"], [data-job][data-state="queued"]', timeout=60_000)
        (found,) = (job for job in jobs.jobs(filled) if "recipes" in job.spec)
        assert found.spec["recipes"] == ["dense", "rtn@4bit"] and found.spec["tasks"] == ["instructions"]
        jobs.cancel(filled, found.id)
        ended = until(filled, found.id, lambda job: not job.active, 60)
        assert ended.state in ("cancelled", "failed")
    finally:
        for job in jobs.jobs(filled):
            jobs.cancel(filled, job.id)
            until(filled, job.id, lambda job: not job.active, 60)
            jobs.forget(filled, job.id)
        if not folder.exists():
            (filled.root / "aside").rename(folder)


def test_a_click_on_a_bar_filters_the_table(tab: Tab, frame: pd.DataFrame, filled: Store) -> None:
    row = cell(frame, "magnitude@0.7", "factoid_qa")
    examples = views.examples(filled, row["run"], row["dense_run"])
    tab.open("/compare?task=factoid_qa&a=dense&b=magnitude@0.7&kind=both+wrong").page.get_by_text(
        "Flips by discipline"
    ).wait_for()
    x, y, (discipline, kind) = point(tab, "broke", 1)
    click_at(tab, x, y)
    count = ((examples["discipline"] == discipline) & (examples["flip"] == kind)).sum()
    tab.page.get_by_text(f"broke {count}", exact=True).wait_for()
    tab.page.wait_for_function("location.search.includes('kind=broke')")
    assert f"slice={discipline.replace(' ', '+')}" in tab.ready().page.url.replace("%20", "+")


def test_a_disagreement_opens_its_example(chrome: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = synthetic.make(
        tmp_path_factory.mktemp("disagree"), recipes=("dense", "wanda@0.5"), task_names=["retrieval_qa_closed"], n=30
    )
    frame = views.current(views.scores(store), synthetic.MODEL)
    name = synthetic.disagree(store, str(frame.loc[frame["recipe"] == "wanda@0.5", "run"].iloc[0]))
    with serving(store.root) as address:
        tab = opener(chrome, address)().open("/evaluate?b=wanda@0.5")
        tab.page.get_by_text("What else the answers say").click()
        tab.page.get_by_role("link", name=name).click()
        tab.page.get_by_text(f"{name} · ").wait_for()
        assert f"ex={name}" in tab.ready().page.url and "whole=true" in tab.page.url
        tab.check()


def test_two_tabs_compress_one_thing_once(chrome: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both press Compress for the same recipe, each seeing a page that knows nothing of the other."""
    root = open_store(tmp_path_factory.mktemp("two") / "cache").root
    with serving(root) as address:
        open_one = opener(chrome, address)
        tabs = [open_one().open("/compress?model=pocket-4m&make=magnitude&to=35") for _ in range(2)]
        for tab in tabs:
            tab.page.get_by_role("button", name="Compress", exact=True).wait_for()
        for tab in tabs:
            tab.page.get_by_role("button", name="Compress", exact=True).click()
        for tab in tabs:
            tab.page.get_by_text("Open in Evaluate").wait_for(timeout=90_000)
            tab.check()
        store = open_store(root)
        (only,) = jobs.jobs(store)
        assert only.state == "done" and len(store.keys("weights")) == 1
        for tab in tabs:
            tab.page.context.close()


def test_everything_follows_the_finger(tab: Tab, frame: pd.DataFrame) -> None:
    """While the slider is held, headline and lines have moved and the server has not been asked."""
    headline(tab.open("/?method=magnitude&s=50"), views.headline(frame, "magnitude@0.5"))
    tab.page.wait_for_selector(".js-plotly-plot [data-line]", state="attached")
    tab.page.wait_for_timeout(500)
    box = tab.page.locator('.st-key-s [role="group"]').bounding_box()
    y = tab.page.get_by_test_id("stSliderThumbValue").bounding_box()["y"] + 30
    tab.page.mouse.move(box["x"] + box["width"] * 2 / 3, box["y"] + box["height"] / 2)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 3, y, steps=5)
    headline(tab, views.headline(frame, "magnitude@0.3"))
    assert set(marker(tab)) == {30} and "s=50" in tab.page.url
    tab.page.mouse.up()
    tab.page.wait_for_function("location.search.includes('s=30')")
    headline(tab, views.headline(frame, "magnitude@0.3"))


def test_the_report_arrives_and_works_offline(tab: Tab, frame: pd.DataFrame, tmp_path: Path) -> None:
    tab.open("/?s=50&method=magnitude")
    with tab.page.expect_download() as waiting:
        tab.page.get_by_role("button", name="Report").click()
    path = tmp_path / "report.html"
    waiting.value.save_as(path)
    tab.faults.clear()
    context = tab.page.context.browser.new_context(offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.inner_text("#headline") == views.headline(frame, "magnitude@0.5"), "opens where the reader was"
    page.locator("#s").fill("3")  # dense, 30, 50, 70 %
    assert page.inner_text("#headline") == views.headline(frame, "magnitude@0.7")
    shown = page.locator(".poster:visible")
    assert shown.count() == 1 and shown.get_attribute("data-method") == "magnitude"
    last, marker = shown.locator("svg").evaluate(
        "svg => [Math.max(...[...svg.querySelectorAll('circle')].map(dot => +dot.getAttribute('cx'))), "
        "+svg.querySelector('.marker').getAttribute('x1')]"
    )
    assert abs(last - marker) < 0.1, "the line stands at 70 %, where the last points are"
    page.select_option("#method", "wanda")
    assert page.locator(".poster:visible").get_attribute("data-method") == "wanda"
    context.close()


def test_an_empty_cache_offers_what_fills_it(chrome: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = open_store(tmp_path_factory.mktemp("empty")).root
    with serving(root) as address:
        tab = opener(chrome, address)()
        for path in ("/", "/compress", "/evaluate", "/compare"):
            tab.open(path).page.get_by_text("kick sweep pocket --preset demo").first.wait_for()
        tab.open("/").page.get_by_role("button", name=re.compile("Run the demo .about 10 min")).click()
        tab.page.wait_for_selector('[data-job][data-state="running"], [data-job][data-state="queued"]', timeout=60_000)
        tab.page.get_by_role("button", name="Cancel").click()
        tab.page.wait_for_selector('[data-job][data-state="cancelled"]', timeout=60_000)
        tab.check()
        tab.page.context.close()
