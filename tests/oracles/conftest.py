"""The peers are there only in the environment that `make oracles` builds; elsewhere these tests skip."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from tests.oracles.peers import MODULES

os.environ.setdefault("TQDM_DISABLE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.oracle)
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # the peers' warnings are theirs


@pytest.fixture(scope="session")
def need():
    """Skip where a peer is not installed."""

    def _need(peer: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(MODULES[peer], reason=f"{peer} is not here: `make oracles` installs it")

    return _need
