"""What many tests need: tiny models made on the spot, a store in a temporary folder, the reference data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for a network
if not Path("/dev/nvidia0").exists():  # without a GPU kernels run in Triton's interpreter; it looks when first imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the checkout; tests that need it skip where it is not."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the reference data beside the checkout (../shared) is not there")
    return SHARED


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
