"""lm-evaluation-harness on the same questions and model; its Python is named by KICK_LM_EVAL (`make lm-eval`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import lm_eval


def test_the_harness_computes_the_same(tmp_path: Path) -> None:
    """Options, written answers, exact match and ROUGE, dense and exported; questions of the facts that ship."""
    harness = os.environ.get("KICK_LM_EVAL", "")
    if not harness:
        pytest.skip("lm-evaluation-harness is not here: `make lm-eval` installs it")
    lines = {(line.model, line.what, line.task): line for line in lm_eval.compare(
        "pocket-4m", tmp_path, Path(harness).absolute(), None, 12
    )}  # fmt: skip
    assert {model for model, *_ in lines} == {"dense", lm_eval.RECIPE}
    for (_, what, _), line in lines.items():
        if what.startswith(("log-probability", "rouge")):
            assert float(line.apart) < 2e-4, line
        elif what != "exact match":  # two normal forms
            assert line.ours == line.theirs and line.apart.startswith("0 "), line
