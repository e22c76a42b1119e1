"""A prompt of one's own put to a model under several recipes, word by word.

The answers are no measurement: nothing is judged and nothing enters a table. But they are the engine's, by the same
batch shapes and the same sampling as in an evaluation, so that a prompt of a task gets the answer that was measured.
Only a worker runs this; planning needs no torch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from kick_core import methods
from kick_core.errors import BadRequest
from kick_core.records import BlockReport, PlanProgress, Progress
from kick_core.spec import Calibration, Dtype, ModelRef, parse
from kick_core.store import Store, weight_artifacts

if TYPE_CHECKING:
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.evaluation import EvalSession

LONGEST = 8000
"""Characters of a prompt; its tokens are compared with the model's context when it is open."""


@dataclass(frozen=True, slots=True)
class PromptJob:
    """A prompt, and who should answer it.

    Attributes:
        model: Hub id, folder or the name of a pocket model.
        recipes: Recipe texts, each once.
        prompt: The text.
        weights: For each recipe the key of the artifact that answers, so that the very weights that were measured do;
            where it names none, or one that was removed, the recipe is made with `calibration`.
        chat: Whether the text is put into the model's dialogue form.
        new_tokens: Tokens to write at most.
        temperature: 0 is greedy.
        seed: Of the sampling.
        calibration: For recipes that must be made.
        device: As in a sweep.
        dtype: As in a sweep.

    Raises:
        BadRequest: For what cannot be asked.
    """

    model: str
    recipes: tuple[str, ...]
    prompt: str
    weights: tuple[str, ...] = ()
    chat: bool = False
    new_tokens: int = 96
    temperature: float = 0.0
    seed: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    device: str = "auto"
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        if not self.prompt.strip() or len(self.prompt) > LONGEST:
            raise BadRequest(f"a prompt of {len(self.prompt)} characters: 1 to {LONGEST} are taken")
        if not 1 <= self.new_tokens <= 1024:
            raise BadRequest(f"{self.new_tokens} new tokens: 1 to 1024 are taken")
        if not 0 <= self.temperature <= 2:
            raise BadRequest(f"temperature {self.temperature}: 0 (greedy) to 2 is taken")
        if not self.recipes or len(set(self.recipes)) < len(self.recipes):
            raise BadRequest(f"recipes {', '.join(self.recipes) or '(none)'}: one or more, each named once")
        for text in self.recipes:
            methods.resolve(parse(text))

    def to_json(self) -> dict[str, Any]:
        """The job as JSON values, with its tag."""
        return {"kind": "prompt", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, of this version or an earlier one without a tag."""
        values = {name: value for name, value in data.items() if name != "kind"}
        values["calibration"] = Calibration(**values["calibration"])
        return cls(**{**values, "recipes": tuple(values["recipes"]), "weights": tuple(values["weights"])})


def run(job: PromptJob, store: Store) -> Iterator[Progress]:
    """Answer under every recipe in turn. An artifact that is not there is made first, and kept.

    Yields:
        Progress in tokens, with the answer so far.

    Raises:
        BadRequest: For a prompt that does not fit the model's context.
    """
    yield Progress("", 0.0, 1.0, f"opening {job.model}")
    from kick_core import evaluation
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.artifacts.loaded_model import open_for
    from kick_core.models.tokenization import dialogue, encode
    from kick_core.runs import trials

    reference = ModelRef(job.model, dtype=job.dtype)
    builder = ArtifactBuilder(store, open_for(reference, store, job.device), job.calibration)
    trials.recall(store, builder.opened)
    session = evaluation.open_session(builder.opened.model, builder.opened.tokenizer)
    text = dialogue(session.tokenizer, [job.prompt], []) if job.chat else job.prompt
    ids = encode(session.tokenizer, text)
    if len(ids) + job.new_tokens > session.context:
        raise BadRequest(
            f"a prompt of {len(ids)} tokens and {job.new_tokens} new ones: {job.model} has room for {session.context}"
        )
    total = float(len(job.recipes) * job.new_tokens)
    for number, recipe in enumerate(job.recipes):
        done = float(number * job.new_tokens)
        for report in _apply(builder, recipe, job.weights[number] if number < len(job.weights) else ""):
            if isinstance(report, PlanProgress):
                yield Progress(recipe, done, total, report.note)
            else:
                yield Progress(recipe, done, total, "compressing", report.block, report.blocks, report.loss)
        yield Progress(recipe, done, total, "answering", answer="")
        for written in _stream(session, ids, job):
            answer = str(session.tokenizer.decode(written, skip_special_tokens=True))
            yield Progress(recipe, done + len(written), total, "answering", answer=answer)
        trials.keep(store, builder.opened)
    yield Progress("", total, total, "done")


def _apply(builder: ArtifactBuilder, recipe: str, key: str) -> Iterator[BlockReport | PlanProgress]:
    if key and weight_artifacts.has(builder.store, key):
        builder.opened.apply_weights(builder.store, key)
    else:
        yield from builder.make(parse(recipe))


def _stream(session: EvalSession, ids: list[int], job: PromptJob) -> Iterator[list[int]]:
    """The answer's token ids so far, again after every token.

    The engine writes in a thread: it looks after every token whether the text should stop there, and is listened to
    at that place. Who leaves early makes it stop.
    """
    from kick_core.engine import Sampling

    news: queue.SimpleQueue[list[int] | BaseException | None] = queue.SimpleQueue()
    left = threading.Event()

    def listen(written: list[int]) -> bool:
        news.put(list(written))
        return left.is_set()

    def write() -> None:
        try:
            for batch in session.engine.generate(
                [ids], new_tokens=job.new_tokens, ends=session.ends, stops=listen, plan=session.plan,
                filler=session.filler, seeds=[job.seed],
                sampling=Sampling(job.temperature) if job.temperature else None,
            ):  # fmt: skip
                if batch:
                    news.put(list(batch[0].ids))
            news.put(None)
        except BaseException as error:
            news.put(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        while (heard := news.get()) is not None:
            if isinstance(heard, BaseException):
                raise heard
            yield heard
    finally:
        left.set()
        thread.join()
