"""How long the explorer takes with a full cache: a slider move, the marker under the finger, opening a page.

Fills a cache with made-up results of 36 recipes x 7 tasks x 14,042 examples (the size of MMLU), then measures the
pages' own Python (Streamlit's test harness, warm caches) and, with chromium, what a person at the browser sees.

    nice python -m benchmarks.pages                       # everything; the cache takes a minute and 50 MB
    nice python -m benchmarks.pages --cache DIR --n 2000  # a smaller one, kept in DIR and used again
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import _machine
from kick_core import keys, tasks
from kick_core.records import Example, RunCard
from kick_core.spec import Recipe, parse
from kick_core.store import Store, open_store, results
from kick_core.store.files import seal_json
from kick_core.store.tables import checksum
from tests import synthetic

ROOT = Path(__file__).resolve().parents[1]
RECIPES = (
    "dense",
    *(f"{method}@0.{tenth}" for method in ("magnitude", "wanda", "sparsegpt") for tenth in range(1, 8)),
    *(f"{method}@{pattern}" for method in ("magnitude", "wanda", "sparsegpt") for pattern in ("2:4", "4:8")),
    *(f"{method}@{bits}bit" for method in ("rtn", "gptq") for bits in (8, 4, 3, 2)),
)
WINDOWS = 200
"""Windows of running text at most: WikiText-2 has 166 of 2,048 tokens."""
POOL = 400
"""Different answers of each sort."""


# --- a full cache ------------------------------------------------------------------------------------------


def fill(root: Path, n: int) -> Store:
    """All recipes on all tasks over `n` examples each; what is there already is left alone."""
    store = open_store(root)
    for name in tasks.names("pocket"):
        task = tasks.get(name)
        count = min(n, WINDOWS) if task.kind == "perplexity" else n
        asked = [synthetic.example(task, f"{name}-{i:05d}", i, False) for i in range(count)]
        data = keys.key("examples", {"task": name, "n": count, "benchmark": True})
        results.keep_examples(store, data, asked)
        for text in RECIPES:
            _run(store, task, asked, parse(text), data)
    return store


def _run(store: Store, task: tasks.Task, asked: list[Example], recipe: Recipe, data: str) -> None:
    n, fingerprint = len(asked), keys.sha256_text("benchmark")
    key = keys.key("run", {"recipe": recipe.text, "task": task.name, "n": n, "benchmark": True})
    folder = store.folder("results", key)
    if (folder / "run.json").exists():
        return
    folder.mkdir(parents=True)
    chance = np.random.default_rng(abs(hash((recipe.text, task.name))) % 2**32)
    hard = np.random.default_rng(7).random(n)
    right = hard * 0.94 + chance.random(n) * 0.06 < synthetic.quality(task.name, recipe)
    outputs, verdicts = _tables(task, asked, recipe, right, chance)
    _write(folder, f"part-00000-{n:05d}", outputs)
    _write(folder, f"verdicts-v{task.version}-{n:05d}", verdicts)
    card = RunCard(
        key=key, model="benchmark-7b", fingerprint=fingerprint, recipe=recipe.text,
        weights=keys.key("weights", {"recipe": recipe.text}), task=task.name, task_version=task.version,
        protocol="strict", data=tasks.POCKET, examples=data, total=n, settings={}, plan="one", dtype="bfloat16",
        device="cuda", created="2026-11-23T02:00:00+00:00", versions={},
    )  # fmt: skip
    (folder / "run.json").write_bytes(seal_json(card.to_json()))


def _tables(
    task: tasks.Task, asked: list[Example], recipe: Recipe, right: np.ndarray, chance: np.random.Generator
) -> tuple[pa.Table, pa.Table]:
    n, ids = len(asked), [example.id for example in asked]
    exp, choose = task.aggregate == "exp", task.kind == "choose"
    loops = ~right & (chance.random(n) < 0.3) & (synthetic.harm(recipe) > 0.4) & (not choose)
    pool = np.array(
        [f"It was person {i} who taught the craft, in the old hall by the river." for i in range(POOL)]
        + [f"It was person {i} of the city" + " of the river of the city" * 8 for i in range(POOL)]
    )
    text = pool[chance.integers(0, POOL, n) + POOL * loops]
    rate = 0.7 + 0.2 * chance.random(n) + 4 * synthetic.harm(recipe) ** 6
    score = rate if exp else right.astype(float)
    options = np.where(right[:, None], [-0.3, -1.6, -1.8, -2.0], [-1.6, -1.7, -0.3, -2.0])
    nothing = [[]] * n
    columns = {
        "example": ids,
        "prompt_hash": [""] * n,
        "text": nothing if exp or choose else [[one] for one in text],
        "logprobs": (-rate[:, None] * 127).tolist() if exp else options.tolist() if choose else nothing,
        "stop": np.where(loops, "limit", "eos").tolist(),
        "tokens": [127] * n if exp else [12] * n,
        "prompt_tokens": [60] * n,
    }
    absent = {field.name: pa.nulls(n, field.type) for field in results._OUTPUT if field.name not in columns}
    outputs = pa.table({**absent, **columns}, schema=results._OUTPUT)
    why = np.where(right, "right", np.where(loops, "loop", "wrong")).tolist()
    said = np.where(right, "A", "C").tolist() if choose else text.tolist()
    verdicts = pa.concat_tables(
        pa.table(
            {"example": ids, "scorer": [name] * n, "score": score, "extracted": [""] * n if exp else said,
             "why": [""] * n if exp else why},
            schema=results._VERDICT,
        )
        for name in task.scorers
    )  # fmt: skip
    return outputs, verdicts


def _write(folder: Path, stem: str, table: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    (folder / f"{stem}-{checksum(sink.getvalue())}.parquet").write_bytes(sink.getvalue())


# --- the pages' own Python ---------------------------------------------------------------------------------


def timed(
    times: int, move: Callable[[int], object], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Milliseconds of `move(0)`, `move(1)`, …: median, best and worst."""
    found = []
    for i in range(times):
        began = clock()
        move(i)
        found.append(1000 * (clock() - began))
    return _three(found)


def _three(found: list[float]) -> dict[str, float]:
    return {name: round(f(found), 1) for name, f in (("median", statistics.median), ("best", min), ("worst", max))}


def python() -> Iterator[tuple[str, dict[str, float]]]:
    """Script runs in Streamlit's test harness, which costs a little more than a server's.

    In processor time of this process: what a page costs, however busy the machine is.
    """
    cost = functools.partial(timed, clock=time.process_time)
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=600)
    yield "findings, first visit", cost(1, lambda _: _fine(app.run()))
    slider = lambda: app.select_slider(key="s")  # noqa: E731
    yield "findings, slider move", cost(14, lambda i: _fine(slider().set_value(10 * (i % 7 + 1)).run()))
    yield "findings, nothing changed", cost(5, lambda _: _fine(app.run()))
    for page in ("evaluate", "compare", "compress"):
        app.switch_page(f"pages/{page}.py")
        yield f"{page}, first visit", cost(1, lambda _: _fine(app.run()))
        yield f"{page}, again", cost(5, lambda _: _fine(app.run()))


def _fine(app: Any) -> None:
    assert not app.exception, app.exception


# --- in the browser ----------------------------------------------------------------------------------------

_MARKER = """async steps => {
  const input = document.querySelector('.st-key-s input[type=range]')
  const line = () => document.querySelector('.js-plotly-plot [data-line]')?.style.left
  const found = []
  for (let i = 0; i < steps; i++) {
    const before = line(), value = (Number(input.value) + 1) % 7
    const began = performance.now()
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, value)
    input.dispatchEvent(new Event('change', { bubbles: true }))
    while (line() === before && performance.now() - began < 2000) await new Promise(requestAnimationFrame)
    found.push(performance.now() - began)
    await new Promise(done => setTimeout(done, 200))
  }
  return found
}"""


_WHITE = """() => {
  window.white = []
  let last = performance.now()
  const look = now => {
    const seen = [...document.querySelectorAll('.kick h1')].some(h1 => h1.checkVisibility())
    if (!seen) window.white.push(now - last)
    last = now
    requestAnimationFrame(look)
  }
  requestAnimationFrame(look)
}"""
"""Counts how long there is no headline on the screen, frame by frame."""


def browser(cache: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """What a person sees: pages opened again, the marker under the finger, text and charts after a move."""
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import Tab
    from tests.conftest import QUIET, chromium
    from tests.served import started

    with sync_playwright() as playwright, started(cache) as (port, server):
        chrome = playwright.chromium.launch(executable_path=chromium(), args=list(QUIET))
        address, window = f"http://127.0.0.1:{port}", {"width": 1440, "height": 1000}
        tab = Tab(chrome.new_context(viewport=window).new_page(), address)
        cost = functools.partial(timed, clock=lambda: _processor(server.pid))
        tab.page.set_default_timeout(120_000)
        places = {"findings": "/", "evaluate": "/evaluate", "compare": "/compare", "compress": "/compress"}
        for name, path in places.items():
            yield f"browser: {name}, first load", timed(1, lambda _, path=path: _drawn(tab.open(path)))
        for name, path in places.items():
            yield f"browser: {name}, again", timed(3, lambda _, path=path: _drawn(tab.open(path)))
        fresh = [Tab(chrome.new_context(viewport=window).new_page(), address) for _ in range(3)]
        yield "browser: findings on a warm server, new browser", timed(3, lambda i: _drawn(fresh[i].open("/")))
        for other in fresh:
            other.page.context.close()
        yield from _switched(tab)
        _drawn(tab.open("/"))
        tab.page.wait_for_timeout(1500)
        yield "browser: marker", _three(tab.page.evaluate(_MARKER, 8))
        _drawn(tab.open("/?s=10"))
        slider = tab.page.get_by_role("slider")
        slider.focus()
        yield "browser: slider move, shown", timed(6, lambda i: _moved(tab, slider, 20 + 10 * i))
        _drawn(tab.open("/?s=10"))
        slider.focus()
        yield "browser: slider move, settled", timed(6, lambda i: _settled(tab, slider, 20 + 10 * i))
        _drawn(tab.open("/?s=10"))
        slider.focus()
        yield "server: slider move, processor time", cost(6, lambda i: _settled(tab, slider, 20 + 10 * i))
        tab.open("/evaluate?task=factoid_qa&b=magnitude@0.7&kind=broke").page.locator(".stepper").wait_for()
        tab.page.wait_for_timeout(1500)
        for name, example in (("shown", _SHOWN), ("settled", _WRITTEN)):
            yield f"browser: next example, {name}", _stepped(tab, example, time.perf_counter)
        yield "server: next example, processor time", _stepped(tab, _WRITTEN, lambda: _processor(server.pid))
        chrome.close()


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _switched(tab: Any) -> Iterator[tuple[str, dict[str, float]]]:
    """From page to page by the menu: until the new headline stands, and how long there was none at all."""
    _drawn(tab.open("/"))
    tab.page.wait_for_timeout(1500)
    tab.page.evaluate(_WHITE)
    shown, white = [], []
    for at in (1, 2, 3, 0, 2, 1, 3, 0):
        before = tab.page.locator(".kick h1").first.inner_text()
        shown += [timed(1, lambda _, at=at, before=before: _switch(tab, at, before))["median"]]
        tab.ready().page.wait_for_timeout(700)
        white += [tab.page.evaluate("window.white.splice(0).reduce((sum, frame) => sum + frame, 0)")]
    for name, found in (("page switch, shown", shown), ("page switch, without a headline", white)):
        yield f"browser: {name}", _three(found)


def _switch(tab: Any, at: int, before: str) -> None:
    tab.page.get_by_test_id("stTopNavLink").nth(at).click()
    tab.page.wait_for_function(
        "old => [...document.querySelectorAll('.kick h1')].some(h1 => h1.innerText !== old)", arg=before, polling="raf"
    )


def _drawn(tab: Any) -> None:
    tab.page.wait_for_selector(".kick h1")


def _moved(tab: Any, slider: Any, percent: int) -> None:
    slider.press("ArrowRight")
    tab.page.locator(f'h1 [data-step="{percent}"]:not([hidden])').wait_for()


def _settled(tab: Any, slider: Any, percent: int) -> None:
    """Until the server has drawn the page at the new sparsity: the address says so at the end of its run."""
    slider.press("ArrowRight")
    tab.page.wait_for_function("s => new URL(location).searchParams.get('s') === s", arg=str(percent), polling=10)


_SHOWN = "document.querySelector('[data-example]:not([hidden])').dataset.example"
"""The example whose question and answers are in view."""
_WRITTEN = "new URL(location).searchParams.get('ex')"
"""The example that the server has drawn everything of: it writes the address at the end of its run."""


def _stepped(tab: Any, example: str, clock: Callable[[], float]) -> dict[str, float]:
    """Eight steps by the keyboard, each once the last one has come to rest, until `example` is another one."""

    def step(_: int) -> None:
        tab.page.keyboard.press("j")
        tab.page.wait_for_function(f"before => {example} !== before", arg=before, polling="raf")

    times = []
    for _ in range(8):
        before = tab.page.evaluate(example)
        times.append(timed(1, step, clock)["median"])
        tab.page.wait_for_function(f"{_SHOWN} === {_WRITTEN}", polling=10)
        tab.ready().page.wait_for_timeout(300)
    return _three(times)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    given.add_argument("--cache", type=Path, help="keep the made-up cache here and use it again")
    given.add_argument("--n", type=int, default=14_042, help="examples a task")
    given.add_argument("--no-browser", action="store_true")
    given.add_argument("--out", type=Path)
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.cache or Path(folder) / "cache"
        fill(root, options.n)
        os.environ["KICK_CACHE"] = str(root)
        figures = {}
        for name, found in chain(python(), () if options.no_browser else browser(root)):
            figures[name] = found
            print(f"{name:32} {found['median']:9.1f} ms  ({found['best']:.1f} to {found['worst']:.1f})", flush=True)
        shape = {"recipes": len(RECIPES), "tasks": len(tasks.names(tasks.POCKET)), "examples": options.n}
        _machine.write(options.out, "pages", {"cache": shape, "milliseconds": figures})


if __name__ == "__main__":
    main()
