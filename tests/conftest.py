"""What many tests need: tiny models made on the spot, a store in a temporary folder, the reference data."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for a network
if not Path("/dev/nvidia0").exists():  # without a GPU kernels run in Triton's interpreter; it looks when first imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

os.environ.setdefault("KICK_GALLERY", "0")  # pages are tested on what a test puts into its cache

NO_DATA = "benchmark data beside the checkout (../shared/data) is missing"
"""The benchmarks' own files may not be shipped: all of MMLU, MT-Bench's questions, WikiText-2, CNN/DailyMail, Llama's
tokenizer. Comparisons with published code and printed numbers need none of them (tests/golden)."""

EXPECTED_SKIPS = re.compile(
    rf"{re.escape(NO_DATA)}|torch sees no CUDA device|needs a CUDA device|needs two GPUs|there is a GPU|"
    r"Triton is not installed|names no environment with vLLM|`make (oracles|lm-eval|real)` installs it|npm |"
    r"no file system can be mounted|on this machine the bits of a row depend"
)
"""What CI's machines may lack. Any other skip there is a test that silently stopped running, and fails."""

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that holds `data/` with the benchmarks' own files; tests that need it skip where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip(NO_DATA)
    return SHARED


MAIN = sys.modules["__main__"]


def pytest_runtest_setup() -> None:
    """Streamlit's AppTest leaves its page behind as `__main__`, which every process spawned later would run again."""
    sys.modules["__main__"] = MAIN


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return no_unexpected_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return no_unexpected_skip((yield))


def no_unexpected_skip(report: Any) -> Any:
    """Turn a skip into a failure where CI is set and the reason is not one of EXPECTED_SKIPS."""
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not EXPECTED_SKIPS.search(reason):
            report.outcome, report.longrepr = "failed", f"unexpected skip in CI: {reason}"
    return report


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that there is: what is promised holds on all of them."""
    if request.param == "cuda" and not _has_cuda():
        pytest.skip("torch sees no CUDA device here")
    return str(request.param)


@pytest.fixture
def store(tmp_path: Path):
    from kick_core.store import open_store

    return open_store(tmp_path / "cache")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-block Llama with the pocket tokenizer, as a folder in hub layout."""
    from tests.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync",
)  # fmt: skip


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def chrome() -> Iterator[Any]:
    """The one browser of a test run: a second `sync_playwright` cannot start while the first one's loop runs."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()
