"""Ask one model one task: examples in, raw outputs out, batch by batch.

Nothing is judged here. An example whose prompt does not fit the context is answered with a rejected output,
which is counted and never cut silently; of a few-shot prompt the shots go first, one by one, and how many were
left is recorded. One file per way of asking: `writing` (free text and dialogues), `choosing`, `running` (text).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kick_core import tasks
from kick_core.errors import BadRequest
from kick_core.evaluation import generation, multiple_choice, perplexity
from kick_core.evaluation import prompting as forms
from kick_core.evaluation.session import EvalSession, PromptTarget, open_session
from kick_core.records import Example, Output
from kick_core.tasks import POCKET, PROTOCOLS, PromptSpec, Task
from kick_core.tasks.elicitation import parse_prompting

__all__ = [
    "PROTOCOLS",
    "EvalSession",
    "PromptTarget",
    "evaluate",
    "examples",
    "open_session",
    "outputs",
    "prepare",
    "prompt_form",
    "prompt_spec",
]

Target = EvalSession | PromptTarget
"""The model of which only the tokenizer and the context count."""

Load = Callable[[PromptSpec, str], tuple[Example, ...]]
"""How the examples of a spec's data are read."""


def examples(
    task: Task, ask: Target, data: str = POCKET, protocol: str = "strict", load: Load | None = None
) -> tuple[Example, ...]:
    """A task's examples in their fixed order. Perplexity's are windows, so they depend on the tokenizer.

    Args:
        task: The task.
        ask: The model; its tokenizer and context are enough.
        data: What the task is asked on.
        protocol: `strict` or `paper`.
        load: Reads the examples of the data; None: the task's own reader.

    Raises:
        BadRequest: There is none, or two have one id.
    """
    way = task.asking(protocol)
    found = load(way, data) if load else way.load(data)
    if not found:
        raise BadRequest(f"the data {data!r} of {task.name} holds no example")
    if way.kind == "perplexity":
        return perplexity.pages(found[0]) if way.unit == "word" else perplexity.windows(ask, task.name, found[0])
    twice, count = Counter(example.id for example in found).most_common(1)[0]
    if count > 1:
        raise BadRequest(f"the data {data!r} of {task.name} holds {twice!r} more than once: ids must differ")
    return found


def prompt_spec(task: Task, session: Target, protocol: str = "strict", prompting: str = "auto") -> PromptSpec:
    """How a task is put to one model: the protocol's spec in the form that `prompting` comes to.

    Raises:
        BadRequest: an unknown protocol or form, or a form that this model or task cannot take.
    """
    form = prompt_form(task, session, protocol, prompting)
    spec = forms.elicited(task.asking(protocol), form, session.tokenizer)
    if protocol == "paper" or spec.new_tokens <= session.context // 2:
        return spec
    return replace(spec, new_tokens=session.context // 2)  # else a short context has no room for any question


def prompt_form(task: Task, session: Target, protocol: str = "strict", prompting: str = "auto") -> forms.Prompting:
    """The form that `prompting` comes to, and why. Raises as `prompt_spec` does."""
    requested = parse_prompting(prompting)
    return forms.settle("raw" if protocol == "paper" else requested, task.asking(protocol), session.tokenizer)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str | Task,
    limit: int | None = None,
    *,
    data: str = POCKET,
    protocol: str = "strict",
    prompting: str = "auto",
) -> Iterator[Output]:
    """Evaluate a loaded model on the first `limit` examples of a task.

    Args:
        model: a decoder-only transformers model.
        tokenizer: the model's own tokenizer.
        task: a task's name, e.g. `factoid_qa`, or a Task.
        limit: number of examples; None is all of them. Examples have one fixed random order.
        data: `pocket` (the pocket world), `official` (the benchmarks, from the hub) or a folder with their files.
        protocol: `strict`, or `paper` for LLM-KICK's released code, fault for fault.
        prompting: `auto`, `raw`, `chat` or `shots:K`; the paper's protocol is always raw.

    Yields:
        One raw Output per example, in the engine's order; scores are derived from them.

    Raises:
        BadRequest: an unknown task, data set, protocol or prompting, or a limit below 1.
    """
    asked = task if isinstance(task, Task) else tasks.get(task, data)
    if limit is not None and limit < 1:
        raise BadRequest(f"limit {limit}: at least 1 example is needed")
    ask = open_session(model, tokenizer)
    found = examples(asked, ask, data, protocol)
    for batch in outputs(ask, prompt_spec(asked, ask, protocol, prompting), found[:limit], found):
        yield from batch


def prepare(ask: EvalSession, way: PromptSpec, wanted: Sequence[Example], among: Sequence[Example]) -> None:
    """Tokenise what `outputs` will ask, so that it need not: a task's many questions with options take a second.

    It may be done in another thread, while the model is asked something else.
    """
    if way.kind == "choose":
        multiple_choice.prepare(ask, way, {example.id for example in wanted}, among)


def outputs(
    ask: EvalSession, way: PromptSpec, wanted: Sequence[Example], among: Sequence[Example] = ()
) -> Iterator[list[Output]]:
    """Outputs for examples, one list per batch of the engine, in the engine's order.

    `among` are all examples of the task in their order: options are scored in a layout, and prompts read behind
    beginnings, that follow from the whole task, so that an answer does not depend on what it is asked with.
    """
    if way.kind == "choose":
        yield from multiple_choice.choose(ask, way, {example.id for example in wanted}, among or wanted)
    elif way.kind == "perplexity":
        yield from (perplexity.words if way.unit == "word" else perplexity.tokens)(ask, way, wanted)
    else:
        yield from (generation.generate if way.kind == "generate" else generation.dialogue)(ask, way, wanted, among)
