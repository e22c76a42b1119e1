"""In CI a test may skip only for what CI's machines are known to lack."""

from types import SimpleNamespace

import pytest

from tests.conftest import NO_DATA, no_unexpected_skip


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("Skipped: chromium is not installed: apt-get install chromium", "failed"),
        ("Skipped: could not import 'peft': No module named 'peft'", "failed"),
        ("Skipped: torch sees no CUDA device here", "skipped"),
        (f"Skipped: {NO_DATA}", "skipped"),
    ],
)
def test_an_unexpected_skip_fails_in_ci(reason, outcome, monkeypatch):
    def report():
        return SimpleNamespace(skipped=True, outcome="skipped", longrepr=("file.py", 1, reason))

    monkeypatch.setenv("CI", "true")
    assert no_unexpected_skip(report()).outcome == outcome
    monkeypatch.delenv("CI")
    assert no_unexpected_skip(report()).outcome == "skipped"
