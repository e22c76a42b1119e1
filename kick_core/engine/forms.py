"""In which form a model is asked: the fastest of several that is proven to answer as plain forwards do.

A plain forward reads one text, without padding, neighbours or a cache. Whether something faster comes to the same
depends on the architecture: attention may count columns, a recurrence may read padding, scaling may follow from the
longest row, a cache may not be shared. So before a model's first options or texts a few of its own prompts, the longest
among them, are asked in every form, the fastest first, until one agrees; what departs from the fastest is noted. How
much two right forms may differ is measured too: by how much a plain forward's numbers change when tokens are added
behind, which also shows whether the model is causal at all.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from kick_core import timing
from kick_core.engine.batching import BatchPolicy, Ids, any_length
from kick_core.engine.padded import Options, OptionScores, plain_logprobs
from kick_core.errors import KickError

_MEMORY = "_kick_forms"
_FLOOR = {torch.float32: 2e-3, torch.float64: 1e-6, torch.float16: 0.02}
"""Nats that two right forms may differ by in the root mean square, whatever the noise; 0.05 in bfloat16."""
_TIMES = 6.0
"""A form agrees while it differs from plain forwards by less than so many times the noise."""
_CHANGED = {torch.float32: 0.01, torch.float64: 0.01}
"""A position's log-probabilities change when they do by this share of their spread; by 0.1 in half precision."""
_ACAUSAL = 0.9
"""A model is not causal when tokens behind change this share of all positions. One that chooses keys changes some,
where choices are tied."""
_ADDED = 8
_STEPS = 3
SAMPLE = 3
"""Prompts that a form is tried on at most."""
_TRIED = 32
"""Tokens of a prompt that a form of texts is tried on, where no more can matter."""
_SIZES = re.compile(
    r"(vocab|hidden|intermediate)_size|.*(_dim|_rank|_id)|num_.*|n_(embd|head|layer|ctx|positions|inner)|.*_(heads|experts)"
    r"|max_position_embeddings|query_pre_attn_scalar"
)
"""Integers of a config that are sizes of tensors. Any other may be a length from which on a model reads otherwise."""
_TIED = 0.25
"""Nats of noise of which is said that they are no rounding."""


def _remembered(model: PreTrainedModel) -> dict[Any, Any]:
    """What was found of this model, by what was asked: a fact of its architecture and device, not of its weights."""
    found: dict[Any, Any] = model.__dict__.setdefault(_MEMORY, {})
    return found


def facts(model: PreTrainedModel) -> dict[str, float | str]:
    """What trials of this model came to so far, as plain JSON for `assume`."""
    return {f"{kind} {size}": value for (kind, size), value in _remembered(model).items()}


def assume(model: PreTrainedModel, facts: Mapping[str, float | str]) -> None:
    """Take over the `facts` of the same model in the same `circumstances`: nothing of them is tried again."""
    for name, value in facts.items():
        kind, size = name.rsplit(" ", 1)
        _remembered(model).setdefault((kind, int(size)), value)


def circumstances(model: PreTrainedModel) -> dict[str, str]:
    """What trials depend on beside a model's files: dtype, device, versions, this engine to the letter."""
    cuda = model.device.type == "cuda"
    return {
        "dtype": str(model.dtype),
        "attention": str(model.config._attn_implementation),
        "device": torch.cuda.get_device_name(model.device) if cuda else torch.backends.cpu.get_cpu_capability(),
        "placed": str(getattr(model, "hf_device_map", "")),
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "engine": _engine_sum(),
    }


@cache
def _engine_sum() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@torch.inference_mode()
def require_causal(model: PreTrainedModel, ids: Ids) -> float:
    """Check on one text that tokens see only what stands before them; returns the noise of a plain forward in nats.

    Raises:
        KickError: When they see what stands behind: such a model gives no probabilities of texts.
    """
    require_embedded(model, [ids])
    memory, size = _remembered(model), bucket(len(ids))
    known = [noise for (kind, longest), noise in memory.items() if kind == "noise" and longest >= size]
    if not known:
        longest = _most(model)
        text = list(ids)[: longest - _ADDED] if longest > 2 * _ADDED else list(ids)[: longest // 2]
        behind = (text * _ADDED)[: min(_ADDED, longest - len(text))]
        with timing.stage("trial"):
            alone = _plain(model, text, len(text))
            followed = _plain(model, [*text, *behind], len(text) + len(behind))[: len(text)]
        tops = alone.topk(min(8, alone.shape[-1]), -1).indices
        change = (alone - followed).gather(-1, tops)
        finite = bool(alone.isfinite().all() and followed.isfinite().all())
        changed = change.abs().mean(-1) > _CHANGED.get(model.dtype, 0.1) * alone.std(-1)
        if finite and behind and float(changed.float().mean()) > _ACAUSAL:
            raise KickError(
                f"{type(model).__name__} is not causal: what it finds likely depends on the tokens behind, so it can "
                f"be asked for no options, texts or perplexity (an encoder, or a config without is_decoder?)"
            )
        changes = float(change[..., 0].square().mean().sqrt())
        memory["changes", size] = changes
        known = [max(changes, _rounding(alone, model.dtype))]
        memory["noise", size] = known[0]
    found: float = known[0]
    return found


def _plain(model: PreTrainedModel, ids: Ids, last: int) -> Tensor:
    """As `plain_logprobs`: of texts that all have another length."""
    with any_length():
        return plain_logprobs(model, ids, last)


def _rounding(logprobs: Tensor, dtype: torch.dtype) -> float:
    """Root mean square, in nats, of what rounding to a dtype changes in the likeliest tokens' logits.

    Logits are known up to a constant; their size is the likeliest one's distance from the middle one, which holds for
    vocabularies with unused, infinitely unlikely tokens too.
    """
    size = float((logprobs.amax(-1) - logprobs.median(-1).values).max())
    if not 0 < size < math.inf:
        return 0.0
    apart = torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(size))
    return apart / math.sqrt(12)


def require_embedded(model: PreTrainedModel, texts: Iterable[Ids]) -> None:
    """Raises KickError for a token that the model has no embedding for."""
    count = int(model.get_input_embeddings().weight.shape[0])
    if (largest := max((max(ids) for ids in texts if len(ids)), default=0)) >= count:
        raise KickError(
            f"token {largest} is none of the model's: its tokenizer knows more tokens than its {count} embeddings, so "
            f"they are not of one model"
        )


def bucket(length: int) -> int:
    """Prompts of lengths between two powers of two are asked in one form."""
    return math.ceil(math.log2(length + 1))


def _most(model: PreTrainedModel) -> int:
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else 1 << 30


@torch.inference_mode()
def rescaled(model: PreTrainedModel, shorter: int, longer: int) -> bool:
    """Whether positions are turned otherwise in a text of `longer` tokens than in one of `shorter`: then what a cache
    holds of a text's beginning is no longer what a forward over all of it would read (longrope, dynamic scaling)."""
    return any(
        not all(torch.equal(a, b) for a, b in zip(_turned(one, shorter, kind), _turned(one, longer, kind), strict=True))
        for one in model.modules()
        if (types := getattr(one, "rope_type", None)) is not None
        for kind in (types if isinstance(types, dict) else ("",))
    )


def _turned(rotary: Any, length: int, kind: str) -> tuple[Tensor, ...]:
    """Cosine and sine of the first positions in a text of so many tokens; nothing where the module takes other things.

    A text's length is seen from its last position.
    """
    places = torch.tensor([[0, 1, length - 1]], device=rotary.inv_freq.device if hasattr(rotary, "inv_freq") else None)
    inputs = torch.zeros(1, 3, 1, device=places.device)
    try:
        found = rotary(inputs, places, **({"layer_type": kind} if kind else {}))
    except (TypeError, ValueError, RuntimeError, IndexError):
        return ()
    turned = found if isinstance(found, tuple) else (torch.view_as_real(found),)
    return tuple(part[..., :2, :].clone() for part in turned)


def trial_length(model: PreTrainedModel, longest: int) -> int:
    """How many of a prompt's tokens tell as much of a form of texts as all of them.

    Reading a prompt five times over to try a form is most of what one text costs on a CPU. Attention that reads all
    that stands before, or a window of it, is of one kind from the window's end on. Elsewhere a whole prompt is tried:
    states are read in chunks, positions may be scaled by length, and a GPU's kernels follow from it.
    """
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if model.device.type != "cpu" or lengths_matter(model) or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return longest
    numbers = model.config.get_text_config().to_dict().items()
    borders = [n for name, n in numbers if isinstance(n, int) and not _SIZES.fullmatch(name) and n < longest + _STEPS]
    return min(longest, max(_TRIED, max(borders, default=0) + _TRIED // 2))


def agree(model: PreTrainedModel, noise: float, errors: Sequence[float]) -> bool:
    """Whether differences from plain forwards, in nats, are no more than noise."""
    root = math.sqrt(sum(e * e for e in errors) / max(1, len(errors)))
    return root <= _FLOOR.get(model.dtype, 0.05) + _TIMES * noise


def chosen_form(
    model: PreTrainedModel,
    kind: str,
    longest: int,
    noise: float,
    forms: Sequence[str],
    right: Callable[[str], bool | None],
    plan: BatchPolicy,
) -> str:
    """The first form that answers rightly, remembered for prompts of about this length; the last one always does. What
    is right for long prompts is right for shorter ones.

    `right` gives None when nothing can be told (numbers that are not finite): then the first form is kept.
    """
    memory, size = _remembered(model), bucket(longest)
    sure = [found for (name, known), found in memory.items() if name == kind and known >= size and found == forms[0]]
    form = forms[0] if sure else memory.get((kind, size))
    if form not in forms:
        form = next((form for form in forms[:-1] if _answers(right, form)), forms[-1])
        memory[kind, size] = form
    changes = max((value for (name, _), value in memory.items() if name == "changes"), default=0.0)
    if changes > _TIED:
        plan.note(
            f"plain forwards of this model differ by {changes:.2g} nats when tokens are added behind (it chooses what "
            f"it reads, and choices are tied): its numbers are approximate"
        )
    if form != forms[0]:
        plan.note(f"{kind} asked {form}: {forms[0]} their numbers are not those of plain forwards")
    return str(form)


def _answers(right: Callable[[str], bool | None], form: str) -> bool:
    try:
        with timing.stage("trial"):
            return right(form) is not False
    except (torch.OutOfMemoryError, KickError):
        raise
    except Exception:  # whatever an architecture raises that cannot be asked so
        return False


def lengths_matter(model: PreTrainedModel) -> bool:
    """Whether positions are turned otherwise in long texts, so that a form may be right for short ones only."""
    config = model.config.get_text_config()
    turned = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [part for part in (turned, *turned.values()) if isinstance(part, dict)]
    return any(kind.get("rope_type", kind.get("type")) in ("longrope", "dynamic") for kind in kinds)


def sample(prompts: Sequence[Ids], most: int = SAMPLE) -> list[int]:
    """A few prompts that try a form hardest: the longest, those that share most with it, and the shortest."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    longest = order[-1]
    rest = [i for i in order[:-1] if len(prompts[i]) > 0]
    near = sorted(rest[-200:], key=lambda i: (-_common(prompts[i], prompts[longest]), i))
    found = dict.fromkeys([longest, *near[: most - 2], *order[:1]])
    return sorted(found)


def _common(one: Ids, other: Ids) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@torch.inference_mode()
def right_options(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Options],
    noise: float,
    ask: Callable[[Sequence[Ids], Sequence[Options]], Iterator[dict[int, OptionScores]]],
) -> bool | None:
    """Whether a way of asking scores a few prompts' options as plain forwards do; None when nothing can be told."""
    some = sample(prompts)
    few = [prompts[i] for i in some]
    own = [_few(options[i]) for i in some]
    found: dict[int, OptionScores] = {}
    for batch in ask(few, own):
        found |= batch
    errors = []
    known: dict[tuple[int, ...], Tensor] = {}  # options of one token have one forward in common
    for number, (prompt, choices) in enumerate(zip(few, own, strict=True)):
        for option, value in zip(choices, found[number].logprobs, strict=True):
            tokens = (*prompt, *option[:-1])
            if tokens not in known:
                known[tokens] = _plain(model, tokens, len(option))
            plain = known[tokens]
            right = float(sum(plain[n, token] for n, token in enumerate(option)))
            if not math.isfinite(right):
                return None
            errors.append((value - right) / math.sqrt(len(option)))
    return agree(model, noise, errors)


def _few(options: Options) -> list[Ids]:
    """Two options, the longest ones: what follows a prompt is where forms differ."""
    return sorted(options, key=len)[-2:]


@torch.inference_mode()
def right_texts(
    model: PreTrainedModel, prompts: Sequence[Ids], noise: float, steps: Any, room: int, fixed: bool
) -> bool | None:
    """Whether steps of decoding give the logits of plain forwards; some rows leave on the way where rows may.

    None when nothing can be told.
    """
    few = sorted((prompts[i] for i in sample(prompts)), key=len)
    seen: list[Tensor] = []
    before = steps.choose

    def choose(logits: Tensor, _uniforms: Tensor) -> Tensor:
        seen.append(logits.float().log_softmax(-1).clone())
        return logits.argmax(-1)

    steps.choose = choose
    try:
        return _steps_agree(model, few, noise, steps, room, fixed, seen)
    finally:
        steps.choose = before


def _steps_agree(
    model: PreTrainedModel, few: list[Ids], noise: float, steps: Any, room: int, fixed: bool, seen: list[Tensor]
) -> bool | None:
    steps.begin(few, len(few), room, _STEPS, torch.zeros(len(few), _STEPS))
    rows, failed = list(range(len(few))), False
    written: list[list[int]] = [[] for _ in few]
    own: list[list[Tensor]] = [[] for _ in few]
    for number in range(_STEPS):
        tokens = steps.next()
        for place, row in enumerate(rows):
            own[row].append(seen[number][place])  # not the last one seen: on a GPU the next step has begun already
            written[row].append(tokens[place])
        if failed := any(token < 0 for token in tokens):
            break
        if number == 1 and not fixed and len(rows) > 1:
            left = list(range(1, len(rows)))
            rows = [rows[place] for place in steps.keep(left)]
    errors = []
    for prompt, tokens, logprobs in zip(few, written, own, strict=True):
        # one forward over a whole text tells all steps: the model is causal
        plain = _plain(model, [*prompt, *tokens[:-1]], len(logprobs))
        if not plain.isfinite().all():
            return None
        errors += [float((mine - right)[right.argmax()]) for mine, right in zip(logprobs, plain, strict=True)]
    return not failed and agree(model, noise, errors)


def quiet(plan: BatchPolicy) -> BatchPolicy:
    """The same plan, whose notes nobody reads."""
    return replace(plan, notes=[])
