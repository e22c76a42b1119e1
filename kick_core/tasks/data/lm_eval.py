"""Logged samples of lm-evaluation-harness (`--log_samples`): what was asked, answered and scored there.

A file holds one task, a JSON object a line. Log-probabilities of options (multiple choice) or of one continuation
(LAMBADA) and written answers (`generate_until`) are read; what the harness scored is kept beside the answer, because
its rules are the task's own. The files are foreign: whatever is in them, a fault is one line that names file and line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from kick_core.errors import BadRequest, KickError
from kick_core.keys import sha256_text
from kick_core.records import Example, Output
from kick_core.tasks.base import PromptSpec, Score, Scorer, Task
from kick_core.tasks.data.task_files import slug
from kick_core.tasks.option_scorers import BY_WORDS, chosen
from kick_core.tasks.scorers import answer_of
from kick_core.tasks.wording import lettered

SETTING = "lm_eval"
"""Where an imported run's settings say what it was."""

LARGEST = 4 << 30
"""Bytes of a file of samples."""

HEADLINES = ("acc", "acc_norm", "exact_match", "em", "f1", "rougeL", "rouge_l", "bleu")
"""Metrics of the harness, those that a task reports first in front."""

_FILE = re.compile(r"samples_(.+?)_\d{4}-\d\d-\d\dT.*")

Sample = dict[str, Any]
Kind = Literal["choose", "generate"]


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one task and one model.

    Attributes:
        task: the harness's name of the task.
        kind: options or written answers.
        metrics: the names of the harness's scores, the headline first.
        filter: what the harness read out of an answer before it scored, by its name.
        examples: the questions.
        outputs: the answers, in the same order; their `metrics` are the harness's scores.
    """

    task: str
    kind: Kind
    metrics: tuple[str, ...]
    filter: str
    examples: tuple[Example, ...]
    outputs: tuple[Output, ...]

    @property
    def own_task(self) -> str:
        """The task that asks them here, under the harness's name."""
        return f"{'own_choice' if self.kind == 'choose' else 'own_questions'}/{slug(self.task)}"


def task_name(path: Path) -> str:
    """The task of a file by its name, `samples_TASK_TIME.jsonl`; the whole name of any other."""
    match = _FILE.fullmatch(path.stem)
    return match[1] if match else path.stem


def says_task(path: Path) -> bool:
    """Whether a file has the harness's own name, which says the task."""
    return _FILE.fullmatch(path.stem) is not None


def groups(folder: Path, tasks: Collection[str]) -> dict[str, list[str]]:
    """Group -> its tasks, for the groups to which the harness gave one score (MMLU's subjects), the outermost ones.

    Args:
        folder: where results_*.json and the samples lie. Without results MMLU's tasks are one group by their names.
        tasks: those that there are samples of.
    """
    children: dict[str, list[str]] = {}
    scored: set[str] = set()
    for file in sorted(folder.rglob("results_*.json"), key=lambda file: file.stem):
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            children |= {str(name): [*map(str, parts)] for name, parts in results["group_subtasks"].items() if parts}
            scored |= {str(name) for name in results.get("groups") or ()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # a foreign file, needed for nothing but this
    if not children:
        return {"mmlu": mmlu} if len(mmlu := [task for task in tasks if task.startswith("mmlu_")]) > 1 else {}
    inner = {part for name in scored for part in children.get(name, ())}
    members = {
        name: [task for task in tasks if task in _leaves(name, children)]
        for name in sorted((scored & children.keys()) - inner)
    }
    return {name: parts for name, parts in members.items() if len(parts) > 1}


def _leaves(name: str, children: Mapping[str, Sequence[str]]) -> set[str]:
    """All tasks of a group and of the groups in it."""
    leaves, ahead, met = set[str](), [name], {name}
    while ahead:
        for part in children[ahead.pop()]:
            if part not in children:
                leaves.add(part)
            elif part not in met:
                met.add(part)
                ahead.append(part)
    return leaves


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file as they lie.

    Raises:
        BadRequest: no file, or a line that is no sample.
        KickError: a file that cannot be read as UTF-8 text.
    """
    if not path.is_file():
        raise BadRequest(f"{path} is not there: samples lie where lm_eval --output_path --log_samples put them")
    if path.stat().st_size > LARGEST:
        raise BadRequest(f"{path} has {path.stat().st_size >> 20:,} MB, at most {LARGEST >> 20:,} MB are read")
    try:
        with open(path, encoding="utf-8") as file:
            samples = list(_rows(path, file))
    except (OSError, UnicodeDecodeError) as error:
        raise KickError(f"{path} cannot be read as UTF-8 text ({error})") from error
    if not samples:
        raise BadRequest(f"{path} holds no sample")
    return samples


def _rows(path: Path, file: TextIO) -> Iterator[Sample]:
    """A sample a line, or, as versions before 0.4.2 wrote them, one list over many lines."""
    for number, line in enumerate(file, 1):
        where = f"{path}, line {number}"
        if number == 1 and line.strip() == "[":
            yield from (
                _sample(f"{path}, sample {n}", one) for n, one in enumerate(_json(where, line + file.read()), 1)
            )
        elif line.strip():
            yield _sample(where, _json(where, line))


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{where} is not JSON ({error})") from error


def _sample(where: str, sample: Any) -> Sample:
    if not isinstance(sample, dict):
        raise BadRequest(f"{where}: a JSON object is expected, not {str(sample)[:40]!r}")
    for name in ("doc", "resps", "target"):
        if name not in sample:
            raise BadRequest(f"{where} lacks {name!r}: it is no sample that lm_eval --log_samples wrote")
    if not isinstance(sample["resps"], list) or not sample["resps"]:
        raise BadRequest(f"{where}, resps: a list of answers is expected")
    return sample


def read(path: Path, task: str | None = None) -> Samples:
    """The samples of a file as questions and answers.

    Args:
        path: `samples_TASK_TIME.jsonl`.
        task: its task; None: by the file's name.

    Raises:
        BadRequest: a sample that is neither multiple choice nor a written answer, one whose target is no option, or two
            of one question under one filter.
        KickError: a file that cannot be read.
    """
    task = task or task_name(path)
    samples = read_samples(path)
    names = [str(sample.get("filter", "none")) for sample in samples]
    samples = [sample for sample, name in zip(samples, names, strict=True) if name == names[0]]
    metrics = _metrics(str(path), samples[0])
    kind: Kind = "choose" if _is_choice(samples[0]) else "generate"
    examples, outputs = [], []
    for number, sample in enumerate(samples, 1):
        where = f"{path}, sample {number}"
        if _is_choice(sample) != (kind == "choose"):
            raise BadRequest(f"{where}: options and written answers in one file")
        example, output = (_choice if kind == "choose" else _text)(where, task, sample)
        scores = tuple(_score(where, name, sample.get(name)) for name in metrics)
        examples.append(example)
        # a score that is no number (NaN, null) is one that was not given
        outputs.append(replace(output, metrics=scores if all(map(math.isfinite, scores)) else ()))
    if len({example.id for example in examples}) < len(examples):
        raise BadRequest(f"{path} holds a question more than once: one file holds one run of one task")
    return Samples(task, kind, metrics, names[0], tuple(examples), tuple(outputs))


def merged(parts: Sequence[Samples], name: str) -> Samples:
    """Samples of the subtasks of one benchmark (MMLU's subjects) as one task; a subtask is the subject."""
    examples = tuple(
        replace(example, meta={"subject": part.task.removeprefix(f"{name}_")} | example.meta)
        for part in parts
        for example in part.examples
    )
    outputs = tuple(output for part in parts for output in part.outputs)
    return replace(parts[0], task=name, examples=examples, outputs=outputs)


def _is_choice(sample: Sample) -> bool:
    """Whether every answer is a log-probability with whether it is the greedy one."""
    return len(sample["resps"]) > 1 and all(_logprob(resp) is not None for resp in sample["resps"])


def _logprob(resp: Any) -> float | None:
    """The log-probability in an answer `[[logprob, greedy]]`; numbers may be written as texts."""
    inner = resp[0] if isinstance(resp, list) and len(resp) == 1 else None
    if not isinstance(inner, list) or len(inner) != 2:
        return None
    try:
        return float(inner[0])
    except (TypeError, ValueError):
        return None


def _metrics(where: str, sample: Sample) -> tuple[str, ...]:
    """The names of a sample's scores, the headline first."""
    known = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash")
    listed = sample.get("metrics")
    names = listed if isinstance(listed, list) else [name for name in sample if name not in known]
    scores = [name for name in names if isinstance(name, str) and isinstance(sample.get(name), int | float)]
    scores = [name for name in scores if name != "perplexity"]  # LAMBADA's log-probability: its scale is no score's
    if not scores:
        raise BadRequest(
            f"{where}: the samples hold no score of a single question: task of perplexity or of a whole corpus?"
        )
    order = {name: at for at, name in enumerate(HEADLINES)}
    return tuple(sorted(scores, key=lambda name: order.get(name, len(order))))


def _score(where: str, name: str, value: Any) -> float:
    if isinstance(value, str):
        raise BadRequest(f"{where}, {name}: a number is expected, not {value[:40]!r}")
    return float(value) if isinstance(value, int | float) else math.nan


def _arguments(sample: Sample) -> list[tuple[str, str]]:
    """(context, continuation or nothing) of every request; older versions log lists, newer ones mappings."""
    requests = sample.get("arguments", [])
    rows = list(requests.values()) if isinstance(requests, dict) else requests if isinstance(requests, list) else []
    pairs = []
    for row in rows:
        values = list(row.values()) if isinstance(row, dict) else list(row) if isinstance(row, list | tuple) else [row]
        texts = [value if isinstance(value, str) else "" for value in values[:2]]
        pairs.append((texts[0] if texts else "", texts[1] if len(texts) > 1 else ""))
    return pairs


def _choice(where: str, task: str, sample: Sample) -> tuple[Example, Output]:
    logprobs = [_logprob(resp) or 0.0 for resp in sample["resps"]]
    arguments = _arguments(sample)
    if "acc_mutual_info" in sample:  # the second half are the options without their question
        logprobs, arguments = logprobs[: len(logprobs) // 2], arguments[: len(logprobs) // 2]
    if len(arguments) != len(logprobs):
        raise BadRequest(f"{where}: {len(logprobs)} answers to {len(arguments)} requests")
    options = [after for _, after in arguments]
    gold = _gold(where, sample["target"], options)
    prompts = list(dict.fromkeys(before for before, _ in arguments))
    meta = _meta(sample) | {"options": [option.strip() for option in options]}
    if len(prompts) > 1:  # the options are in the context, and what follows is the same (Winogrande)
        meta["options"] = prompts
    example = Example(_id(task, sample), (prompts[0],), tuple(options), (lettered(options)[gold],), meta)
    finite = all(map(math.isfinite, logprobs))
    stop = "scored" if finite else "not finite"
    return example, Output(example.id, _hash(sample), logprobs=tuple(logprobs) if finite else (), stop=stop)


def _gold(where: str, target: Any, options: Sequence[str]) -> int:
    """The place of the right option: an index, its letter, or its text."""
    if isinstance(target, list) and target:
        target = target[0]
    text = str(target).strip()
    plain = [option.strip() for option in options]
    if text in plain and not isinstance(target, int):
        return plain.index(text)
    if text.lstrip("-").isdigit() and 0 <= int(text) < len(options):
        return int(text)
    if text in (letters := list(lettered(options))):
        return letters.index(text)
    raise BadRequest(f"{where}, target: {text[:40]!r} is none of the options {', '.join(plain)[:80]!r}")


def _text(where: str, task: str, sample: Sample) -> tuple[Example, Output]:
    raw = sample["resps"]
    if (logprob := _logprob(raw[0])) is not None:  # of the target alone (LAMBADA)
        likeliest = str(raw[0][0][1]).lower() == "true"
        raw = f"log-probability {logprob:.4f}, {'' if likeliest else 'not '}the likeliest"
    while isinstance(raw, list) and raw:
        raw = raw[0]
    if not isinstance(raw, str):
        raise BadRequest(f"{where}: neither log-probabilities of continuations nor a written answer")
    target = sample["target"]
    golds = tuple(str(one) for one in target) if isinstance(target, list) else (str(target),)
    prompt = next((before for before, _ in _arguments(sample)), "")
    example = Example(_id(task, sample), (prompt,), answers=golds or ("",), meta=_meta(sample))
    return example, Output(example.id, _hash(sample), text=(raw,), stop="stop", tokens=len(raw.split()))


def _id(task: str, sample: Sample) -> str:
    return f"{task}-{sample.get('doc_id', sha256_text(json.dumps(sample['doc'], sort_keys=True))[:12])}"


def _hash(sample: Sample) -> str:
    """What a prompt is compared by between models; logged from version 0.4.3 on."""
    logged = sample.get("prompt_hash")
    return str(logged)[:16] if logged else sha256_text(json.dumps(_arguments(sample)))[:16]


def _meta(sample: Sample) -> dict[str, Any]:
    """What the question is called and grouped by, where the data say so."""
    doc = sample["doc"] if isinstance(sample["doc"], dict) else {}
    named = (
        ("question", ("question", "query", "input", "prompt", "ctx", "goal")),
        ("subject", ("subject", "category")),
    )
    return {
        field_name: str(doc[field])
        for field_name, fields in named
        for field in [next((name for name in fields if isinstance(doc.get(name), str)), "")]
        if field
    }


# --- the task of an imported run ------------------------------------------------------------------------------


def filled_in(task: Task, settings: Mapping[str, Any]) -> Task:
    """A record of one's own questions with the harness's scores in place of its own.

    Args:
        task: `own_choice` or `own_questions`.
        settings: what the run's settings hold under `SETTING`: task, kind, metrics, version.
    """
    metrics, choice = tuple(settings["metrics"]), settings["kind"] == "choose"
    scorers: dict[str, Scorer] = {name: _logged(name, at, choice=choice) for at, name in enumerate(metrics)}
    spec = PromptSpec(settings["kind"], _no_data)
    return replace(
        task,
        title=str(settings["task"]),
        about=f"{settings['task']} as lm-evaluation-harness asked and scored it",
        version=1,
        strict=spec,
        paper=None,
        scorers={**(BY_WORDS if choice else {}), **scorers},
        headline=metrics[0],
    )


def _no_data(data: str) -> tuple[Example, ...]:
    raise BadRequest(f"data {data!r} were asked by lm-evaluation-harness: import its samples with kick import-lm-eval")


def _logged(name: str, at: int, *, choice: bool) -> Scorer:
    def scorer(example: Example, output: Output) -> Score:
        value = output.metrics[at] if at < len(output.metrics) else math.nan
        extracted = chosen(output) if choice and output.logprobs else answer_of(output)
        if math.isnan(value):
            return Score(None, extracted, "no answer")
        return Score(value, extracted, "right" if value >= 1 else "wrong")

    scorer.__doc__ = f"{name}, as lm-evaluation-harness scored it."
    return scorer
