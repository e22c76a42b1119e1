"""axe-core over every page in both schemes: nothing serious. Skipped, with the reason, where it cannot be had.

axe-core comes from npm into a folder of this test's own and is never kept in the repository; `AXE` may name a
copy of axe.min.js instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kick_core import views
from kick_core.store import Store
from tests import synthetic
from tests.browser.conftest import opener

pytestmark = pytest.mark.browser

PAGES = (
    "/?s=50&method=magnitude",
    "/compress?make=magnitude&model=pocket-11m",
    "/evaluate?task=factoid_qa&b=magnitude@0.7",
    "/evaluate?task=multiple_choice&b=magnitude@0.5",
    "/compare?task=factoid_qa&a=dense&b=magnitude@0.5",
    "/compare?view=Many+recipes&task=factoid_qa",
    "/compare?view=Same+size&task=factoid_qa",
    "/compare?view=Your+own+prompt",
    "/compare?view=Families",
)


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    named = os.environ.get("AXE")
    if named:
        return Path(named).read_text()
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, and AXE names no axe.min.js")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(["npm", "pack", "--silent", "axe-core@4"], cwd=folder, capture_output=True, text=True)
    packs = list(folder.glob("axe-core-*.tgz"))
    if not packs:
        pytest.skip(f"npm could not fetch axe-core: {done.stderr.strip()[-200:]}")
    with tarfile.open(packs[0]) as pack:
        member = pack.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious(chrome: Any, address: str, axe: str, scheme: str) -> None:
    tab = opener(chrome, address)(color_scheme=scheme)
    found = []
    for path in PAGES:
        tab.open(path).page.wait_for_selector(".kick h1")
        tab.page.wait_for_timeout(1200)
        tab.page.evaluate(axe)
        result = tab.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        for fault in result["violations"]:
            if fault["impact"] in ("serious", "critical"):
                nodes = [node["html"][:160] for node in fault["nodes"][:4]]
                found.append(f"{path}: {fault['id']} ({len(fault['nodes'])}): {nodes}")
    tab.page.context.close()
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_in_the_report(
    chrome: Any, filled: Store, axe: str, scheme: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(views.report(filled, synthetic.MODEL))
    context = chrome.new_context(color_scheme=scheme, bypass_csp=True)  # axe itself is a script that the policy forbids
    page = context.new_page()
    page.goto(file.as_uri())
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    context.close()
    assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []
