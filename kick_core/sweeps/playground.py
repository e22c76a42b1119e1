"""A prompt of one's own put to a model under several recipes, word by word.

The answers are no measurement: nothing is judged and nothing enters a table. A prompt is read alone, not in the
evaluation's batches, so in half precision two words that are as good as equally likely may fall the other way.
Only a worker runs this; planning needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
"""Characters of a prompt; the model's context is looked at again in tokens."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What shall be asked of whom. Temperature 0 is greedy; `chat` puts the text into the model's dialogue form.

    `weights` names for each recipe the artifact to wear, so that the very weights that were measured answer; where
    it names none, or one that was removed, the recipe is made with `calibration`.

    Raises BadRequest when made of what cannot be asked.
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
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        given = {**data, "calibration": Calibration(**data["calibration"])}
        return cls(**{**given, "recipes": tuple(data["recipes"]), "weights": tuple(data["weights"])})


def run(asked: Prompt, store: Store) -> Iterator[Progress]:
    """Answer under every recipe in turn. An artifact that is not there is made first, and kept."""
    from kick_core import evaluation
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.artifacts.loaded_model import open_for
    from kick_core.models.tokenization import dialogue, encode

    reference = ModelRef(asked.model, dtype=asked.dtype)
    builder = ArtifactBuilder(store, open_for(reference, store, asked.device), asked.calibration)
    ask = evaluation.open_session(builder.opened.model, builder.opened.tokenizer)
    text = dialogue(ask.tokenizer, [asked.prompt], []) if asked.chat else asked.prompt
    ids = encode(ask.tokenizer, text)
    if len(ids) + asked.new_tokens > ask.context:
        raise BadRequest(
            f"a prompt of {len(ids)} tokens and {asked.new_tokens} new ones: {asked.model} has room for {ask.context}"
        )
    total = float(len(asked.recipes) * asked.new_tokens)
    for place, recipe in enumerate(asked.recipes):
        done = float(place * asked.new_tokens)
        for report in _put_on(builder, recipe, asked.weights[place : place + 1]):
            if isinstance(report, PlanProgress):
                yield Progress(recipe, done, total, report.note)
            else:
                yield Progress(recipe, done, total, "compressing", report.block, report.blocks, report.loss)
        yield Progress(recipe, done, total, "answering", answer="")
        written: list[int] = []
        for token in _tokens(ask, ids, asked):
            written.append(token)
            said = str(ask.tokenizer.decode(written, skip_special_tokens=True))
            yield Progress(recipe, done + len(written), total, "answering", answer=said)
    yield Progress("", total, total, "done")


def _put_on(builder: ArtifactBuilder, recipe: str, named: Sequence[str]) -> Iterator[BlockReport | PlanProgress]:
    key = next(iter(named), "")
    if key and weight_artifacts.has(builder.store, key):
        builder.opened.apply_weights(builder.store, key)
    else:
        yield from builder.make(parse(recipe))


def _tokens(ask: EvalSession, ids: list[int], asked: Prompt) -> Iterator[int]:
    """The continuation, token by token, until the model ends it."""
    import torch
    from transformers import DynamicCache

    chance = torch.Generator().manual_seed(asked.seed)
    cache = DynamicCache(config=ask.model.config)
    step = torch.tensor([ids], device=ask.model.device)
    for _ in range(asked.new_tokens):
        with torch.inference_mode():
            logits = ask.model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        last = logits[0, -1].float().cpu()
        if asked.temperature:
            token = int(torch.multinomial((last / asked.temperature).softmax(-1), 1, generator=chance))
        else:
            token = int(last.argmax())
        if token in ask.ends:
            return
        yield token
        step = torch.tensor([[token]], device=ask.model.device)
