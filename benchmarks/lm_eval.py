"""The same questions, the same model: this package beside lm-evaluation-harness, number by number.

The harness has an environment of its own (`make lm-eval` builds it). It is asked in this package's prompts, so what
differs is how answers are computed and scored, not how they are worded. Dense, and a recipe that `kick export` wrote:

    python -m benchmarks.lm_eval MODEL --harness .venv-lm-eval/bin/python [--data DIR] [--limit 60] [--docs]

--data is a folder with MMLU, TriviaQA, NQ-open and WikiText-2 (facts that ship are asked without); --docs puts the
table into docs/lm-eval.md, --keep DIR leaves the harness's logged samples there, and goes on with what lies there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import _machine, lm_eval_tasks
from kick_core import tasks
from kick_core.artifacts.loaded_model import open_for
from kick_core.cli import main as kick
from kick_core.evaluation import examples as examples_of
from kick_core.evaluation import open_session, prompt_spec
from kick_core.evaluation.prompting import text
from kick_core.models.source import find
from kick_core.records import Example, Output
from kick_core.spec import ModelRef
from kick_core.store import Store, open_store, results
from kick_core.sweeps import driver, sweep_keys
from kick_core.sweeps.request import SweepJob
from kick_core.tasks.data.lm_eval import read_samples
from kick_core.tasks.scorers import exact_match

RECIPE = "magnitude@0.5"
SHIPPED = ("world_facts_choice", "world_facts")
FROM_FOLDER = ("multiple_choice", "retrieval_qa_closed", "nq_open", "word_perplexity")
RESULTS = Path(__file__).parent / "results" / "lm-eval.json"
DOCS = Path(__file__).parents[1] / "docs" / "lm-eval.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what was compared, over how many, both numbers, and by how much single values differ."""

    model: str
    task: str
    what: str
    n: int
    ours: float
    theirs: float
    apart: str

    @property
    def cells(self) -> str:
        numbers = f"{self.n} | {self.ours:.6g} | {self.theirs:.6g}"
        return f"| {self.model} | {self.task} | {self.what} | {numbers} | {self.apart} |"


def main() -> None:
    """Ask both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--harness", default=".venv-lm-eval/bin/python", help="the harness's Python")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--pages", type=int, default=6, help="pages of WikiText-2, a few thousand tokens each")
    parser.add_argument("--tasks", nargs="*", help="only these")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        lines = compare(
            args.model, work.resolve(), Path(args.harness).absolute(), args.data, args.limit, args.pages, args.tasks
        )
        rows = _kept(args.model, args.harness, list(lines))
    table = "\n".join(
        [
            "| of | model | task | what | n | kick | lm-eval | largest difference of one value |",
            "|---|---|---|---|---:|---:|---:|---|",
        ]
        + [f"| {row['of']} {Line(**row['line']).cells}" for row in rows]
    )
    print(table)
    if args.docs:
        page = DOCS.read_text()
        before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
        DOCS.write_text(f"{before}\n{table}\n{after}")


def _kept(model: str, harness: str, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """All rows of the results' file, those of today in place of older ones."""
    of = model.rstrip("/").split("/")[-1]
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    again = {(of, line.model, line.task) for line in lines}
    rows = [row for row in known if (row["of"], row["line"]["model"], row["line"]["task"]) not in again]
    rows += [{"of": of, "line": asdict(line)} for line in lines]
    about = _machine.about() | {"lm_eval": _version(harness), "dtype": "float32"}
    RESULTS.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    return rows


def _version(harness: str) -> str:
    code = "from importlib.metadata import version; print(version('lm_eval'))"
    return subprocess.run([harness, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def compare(
    model: str,
    work: Path,
    harness: Path,
    data: Path | None,
    limit: int,
    pages: int = 6,
    only: Sequence[str] | None = None,
) -> Iterator[Line]:
    """Ask both; yields the lines of the table. What lies in `work` is not asked again."""
    store = open_store(str(work / "cache"))
    model = folder_of(model, work)
    places = [("official", SHIPPED), *([(str(data.resolve()), FROM_FOLDER)] if data else [])]
    chosen = [(place, [name for name in names if not only or name in only]) for place, names in places]
    jobs = [job(model, place, names, limit, pages=pages) for place, names in chosen if names]
    runs: dict[str, dict[str, str]] = {}
    for one in jobs:
        for _ in driver.run(one, store, 1):
            pass
        runs |= sweep_keys.recall(store, one).runs  # type: ignore[union-attr]
    write_tasks(jobs, work / "tasks")
    with contextlib.redirect_stdout(sys.stderr):
        if not (work / "exported").exists():
            kick(["export", model, RECIPE, str(work / "exported"), "--format", "dense", "--dtype", "float32",
                  "--cache", str(work / "cache")])  # fmt: skip
    for name, folder in (("dense", model), (RECIPE, str(work / "exported"))):
        for task in runs:
            logged = _ask(harness, folder, work / "tasks", work / name.replace("@", "-") / task, task)
            yield from _lines(store, name, task, runs[task][name], logged)


def folder_of(model: str, work: Path) -> str:
    """The folder of a model's files, for programs that know no names of ours."""
    return str(find(ModelRef(model), open_store(str(work / "cache"))).folder)


def job(model: str, data: str, names: Sequence[str], limit: int, dtype: str = "float32", pages: int = 6) -> SweepJob:
    """What is asked here: dense and the recipe, with five worked examples."""
    limits = {name: pages for name in names if tasks.record(name).kind == "perplexity"}
    return SweepJob(
        model, ("dense", RECIPE), tasks=tuple(names), limit=limit, limits=limits, data=data, device="cpu", dtype=dtype,
        prompting="shots:5",
    )  # fmt: skip


def write_tasks(jobs: Sequence[SweepJob], folder: Path) -> None:
    """The questions of the jobs, as tasks for the harness."""
    folder.mkdir(exist_ok=True)
    opened = open_for(ModelRef(jobs[0].model, None, "float32"), None, "cpu")
    session = open_session(opened.model, opened.tokenizer)
    for one in jobs:
        for name in one.tasks:
            task = tasks.get(name, one.data)
            spec = prompt_spec(task, session, prompting=one.prompting)
            asked = examples_of(task, session, one.data)[: one.limit_of(name)]
            rows = [_row(example, text(opened.tokenizer, spec, example, 5), task.kind) for example in asked]
            lm_eval_tasks.write(folder, name, task.kind, rows, spec.new_tokens)


def _row(example: Example, prompt: str, kind: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example.id, "prompt": prompt}
    if kind == "choose":
        return row | {"options": [c.strip() for c in example.choices], "gold": ord(example.answers[0]) - ord("A")}
    if kind == "generate":
        return row | {"golds": list(example.answers)}
    return {"id": example.id, "page": example.prompt[0], "words": example.meta["words"], "bytes": example.meta["bytes"]}


def _ask(harness: Path, model: str, include: Path, out: Path, task: str) -> list[dict[str, Any]]:
    """The harness's logged samples of a task."""
    if not list(out.rglob("samples_*.jsonl")):
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        subprocess.run(command(harness, model, include, out, [task]), check=True, env=offline, stdout=sys.stderr)
    return read_samples(next(out.rglob("samples_*.jsonl")))


def command(
    harness: Path, model: str, include: Path, out: Path, names: Sequence[str], dtype: str = "float32", batch: str = "4"
) -> list[str]:
    """The harness's command line."""
    return [
        str(harness), "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype={dtype}", "--tasks",
        ",".join(names), "--include_path", str(include), "--output_path", str(out), "--log_samples",
        "--batch_size", batch, "--device", "cpu",
    ]  # fmt: skip


def _lines(store: Store, model: str, name: str, run: str, logged: Sequence[dict[str, Any]]) -> Iterator[Line]:
    card = results.run(store, run)
    task = tasks.of_run(card)
    by_id = {example.id: example for example in results.examples(store, card.examples)}
    theirs = {sample["doc"]["id"]: sample for sample in logged}
    pairs = [(by_id[o.example], o, theirs[o.example]) for o in results.outputs(store, run)]
    yield from {"choose": _options, "generate": _texts, "perplexity": _pages}[task.kind](model, name, pairs)


Pairs = Sequence[tuple[Example, Output, dict[str, Any]]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _options(model: str, name: str, pairs: Pairs) -> Iterator[Line]:
    ours = [value for _, output, _ in pairs for value in output.logprobs]
    theirs = [float(resp[0][0]) for *_, sample in pairs for resp in sample["resps"]]
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    yield Line(model, name, "log-probability of an option", len(ours), _mean(ours), _mean(theirs), f"{apart:.1e}")
    task = tasks.record(name)
    for scorer, metric in (
        ("accuracy", "acc"),
        ("accuracy_per_character", "acc_norm"),
        ("accuracy_per_byte", "acc_bytes"),
    ):
        if scorer in task.scorers:
            own = [task.scorers[scorer](example, output).score or 0.0 for example, output, _ in pairs]
            other = [float(sample[metric]) for *_, sample in pairs]
            yield Line(model, name, f"{scorer} ({metric})", len(own), _mean(own), _mean(other), _verdicts(own, other))


def _texts(model: str, name: str, pairs: Pairs) -> Iterator[Line]:
    said = [(output.text[0], _innermost(sample["resps"]).strip()) for _, output, sample in pairs]
    same = _mean([float(ours == theirs) for ours, theirs in said])
    yield Line(
        model, name, "written answers that are equal", len(said), same, same, f"{sum(a != b for a, b in said)} texts"
    )
    own = [exact_match(example, output).score or 0.0 for example, output, _ in pairs]
    other = [float(sample["exact_match"]) for *_, sample in pairs]
    yield Line(model, name, "exact match", len(own), _mean(own), _mean(other), _verdicts(own, other))
    for scorer in ("rouge_1", "rouge_2", "rouge_l"):
        own = [
            tasks.record("summarization").scorers.get(scorer, _rouge(scorer))(e, o).score or 0.0 for e, o, _ in pairs
        ]
        other = [float(sample[scorer]) for *_, sample in pairs]
        apart = max(abs(a - b) for a, b in zip(own, other, strict=True))
        yield Line(model, name, scorer, len(own), _mean(own), _mean(other), f"{apart:.1e}")


def _innermost(answer: Any) -> str:
    """A written answer, whatever lists the harness has it in."""
    while isinstance(answer, list):
        answer = answer[0]
    return str(answer)


def _rouge(name: str) -> Any:
    return tasks.get("summarization", "official").scorers[name]


def _verdicts(own: Sequence[float], other: Sequence[float]) -> str:
    return f"{sum(a != b for a, b in zip(own, other, strict=True))} verdicts"


def _pages(model: str, name: str, pairs: Pairs) -> Iterator[Line]:
    ours = [output.logprobs[0] for _, output, _ in pairs]
    theirs = [float(sample["resps"][0][0]) for *_, sample in pairs]
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    yield Line(model, name, "log-probability of a page", len(ours), _mean(ours), _mean(theirs), f"{apart:.1e}")
    for unit in ("words", "bytes"):
        count = sum(example.meta[unit] for example, *_ in pairs)
        a, b = (math.exp(-sum(values) / count) for values in (ours, theirs))
        yield Line(model, name, f"perplexity per {unit.removesuffix('s')}", len(ours), a, b, f"{abs(a - b):.1e}")


if __name__ == "__main__":
    main()
