"""The findings' numbers and pictures come from results, and the author's sentences stay."""

from __future__ import annotations

import re
from pathlib import Path

from kick_core import views
from kick_core.cli.arguments import parser
from kick_core.cli.requests import preset_job
from tests import synthetic
from tools import findings, measurement, relations

RECIPES = (*synthetic.FEW, "wanda@0.5,recover=blocks")


def _sentences(document: str) -> str:
    """A document without what the script writes into it."""
    return re.sub(r"(<!-- \w+ -->).*?<!-- end -->", r"\1", document, flags=re.DOTALL)


def test_blocks_are_filled_and_sentences_stay(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path / "cache", recipes=RECIPES, model="small-model", n=90)
    documents = [tmp_path / path.name for path in (findings.DOCUMENT, findings.TABLES)]
    texts = [path.read_text() for path in (findings.DOCUMENT, findings.TABLES)]
    for path, text in zip(documents, texts, strict=True):
        path.write_text(text)
    assert findings.main(["--cache", str(store.root), "--documents", *map(str, documents)]) == 0
    document, (filled, tables) = documents[0], [path.read_text() for path in documents]
    assert [_sentences(filled), _sentences(tables)] == [_sentences(text) for text in texts]
    assert [filled.count("**small-model**"), tables.count("**small-model**")] == [3, 9]
    table = tables.split("<!-- table -->")[1].split("<!-- end -->")[0]
    assert {"dense", "magnitude 30 %", "wanda 2:4", "rtn 4 bit"} <= {
        line.split(" | ")[0][2:] for line in table.split("\n")
    }
    assert "does not hold" in filled or "holds" in filled
    pictures = list(tmp_path.glob("*.svg"))
    ratios = [recipe.split("@0.")[0] for recipe in RECIPES if "@0." in recipe and "," not in recipe]
    assert {path.stem for path in pictures} == {f"small-model-{name}" for name in ratios if ratios.count(name) > 1}
    assert pictures and all("xmlns" in path.read_text() for path in pictures)
    findings.fill(store, document)
    assert document.read_text() == filled, "results in, the same bytes out"


def test_another_number_of_examples_or_another_device_is_said(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "wanda@0.5"), task_names=("factoid_qa",), n=40, weights=False)
    frame = views.current(views.scores(store), synthetic.MODEL, "strict")
    fewer = frame["kind"] != "dense"
    table = findings._table(frame.assign(n=frame["n"].where(~fewer, 20), device=frame["device"].where(~fewer, "cuda")))
    dense, wanda = table.splitlines()[2:]
    assert "(40)" in table.splitlines()[0] and "(20, cuda)" in wanda and "cuda" not in dense
    assert "20 to 40" in findings._measured(frame.assign(n=frame["n"].where(~fewer, 20)))


def test_every_stage_of_the_measurement_is_a_sweep_that_can_be_asked(tmp_path: Path) -> None:
    for stage in measurement.STAGES.values():
        words = measurement.command("model", stage, str(tmp_path), ("--workers", "4"))
        job = preset_job(parser().parse_args(words[3:]))
        job.check()
        assert {name: job.limit_of(name) for name in stage.limits if name in stage.tasks} == dict(job.limits)
        assert len(job.parsed()) == len(stage.recipes) + 1, "each once, and dense"
    assert all(set(measurement.FIRST) <= set(stage.recipes) for stage in map(measurement.STAGES.get, ("core", "full")))


def test_perplexity_that_ranks_as_a_task_does_is_not_blind(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path / "cache", recipes=synthetic.RECIPES, model="small-model", n=200, weights=False)
    frame = views.current(views.scores(store), "small-model", "strict")
    row = next(line for line in relations.correlation(frame).split("\n") if line.startswith("| Factoid QA"))
    rho = float(row.split(" | ")[2].split()[0])
    assert rho > 0.9, "harm falls on both by one rule"
    guessing = frame.assign(share_kept=frame["share_kept"].where(frame["task"] != "factoid_qa"))
    assert "Factoid QA" not in relations.correlation(guessing), "nothing to lose"
    blind = frame.copy()
    mask = blind["task"] == "perplexity"
    blind.loc[mask, "score"] = blind.loc[mask, "score"].sample(frac=1, random_state=0).to_numpy()
    row = next(line for line in relations.correlation(blind).split("\n") if line.startswith("| Factoid QA"))
    assert abs(float(row.split(" | ")[2].split()[0])) < 0.6
