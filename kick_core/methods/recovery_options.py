"""Recovery: what of a loss comes back by a little training after compression. Options of every method.

    recover=blocks    every block's kept weights (quantized: scales) are fitted to the dense block's outputs, one block
                      after the other; no gradient leaves a block. (EBFT: Guo et al. 2024, arXiv 2402.12419; that it
                      takes the place of training the whole model: A Free Lunch in LLM Compression, arXiv 2510.14444.)
    recover=lora      low-rank updates of all matrices, trained on running text, pruned places left out of the update,
                      so that it merges into the kept weights exactly. (LoRA: Hu et al. 2021, arXiv 2106.09685; masked
                      and merged: PERP, Zimmer et al. 2023, arXiv 2312.15230.)
    recover=qlora     the same while the frozen weights are held in 4-bit NF4. (Dettmers et al. 2023, arXiv 2305.14314.)

In a joint recipe the options stand after its last part, because recovery comes last. The words are read here, without
torch; `kick_core.compression.recovery` does the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kick_core.errors import BadRequest, nearest
from kick_core.spec import LARGEST, Option, Recipe

KINDS = ("blocks", "lora", "qlora")
TRAINED = ("lora", "qlora")
"""Kinds that train the model as a whole, on a text of their own."""

TEXTS = ("calibration", "pocket", "pocket-unasked", "c4", "wikitext2")
"""What may be trained on: the calibration's own source, or a named one."""

_COMMON: dict[str, Option] = {"recover_seed": 0, "recover_tokens": 65_536}
_DEFAULTS: dict[str, dict[str, Option]] = {
    "blocks": {**_COMMON, "recover_rate": 0.01},
    "lora": {**_COMMON, "recover_rate": 1e-3, "recover_rank": 8, "recover_text": "calibration"},
}
_DEFAULTS["qlora"] = _DEFAULTS["lora"]

_PREFIX = "recover"


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a recipe recovers.

    `tokens` are read by each training (with `blocks`: by each block's, from the calibration windows, several times
    if need be), `rate` is Adam's highest learning rate (with `blocks`: times the root mean square of what moves, so
    that it fits matrices of any scale), `rank` that of the updates, `text` one of `TEXTS`.
    """

    kind: str
    tokens: int
    seed: int
    rate: float
    rank: int = 0
    text: str = ""

    @property
    def trains(self) -> bool:
        """Whether the whole model is trained, on a text."""
        return self.kind in TRAINED


def _is_ours(name: str) -> bool:
    return name == _PREFIX or name.startswith(f"{_PREFIX}_")


def options(args: Mapping[str, Option]) -> dict[str, Option]:
    """The recovery's part of a recipe's options, with all defaults filled in.

    Args:
        args: All options of a recipe.

    Returns:
        Option -> value; empty where nothing is recovered.

    Raises:
        BadRequest: The kind or an option is unknown, or a value is out of range.
    """
    own = {name: value for name, value in args.items() if _is_ours(name)}
    if not own:
        return {}
    kind = own.pop(_PREFIX, None)
    if kind is None:
        raise BadRequest(f"{next(iter(own))} needs recover=KIND beside it, one of: {', '.join(KINDS)}")
    if kind not in KINDS:
        raise nearest(str(kind), KINDS, "recovery")
    known = _DEFAULTS[str(kind)]
    for name, value in own.items():
        if name not in known:
            raise nearest(name, known, f"option of recover={kind}")
        _check(name, value)
    rate = float(own.get("recover_rate", known["recover_rate"]))
    return {_PREFIX: kind, **known, **own, "recover_rate": rate}


_LEAST = {"recover_seed": 0, "recover_tokens": 1024, "recover_rank": 1}


def _check(name: str, value: Option) -> None:
    if name == "recover_text":
        if value not in TEXTS:
            raise nearest(str(value), TEXTS, "text to recover on")
    elif name == "recover_rate":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise BadRequest(f"recover_rate={value}: a learning rate above 0 and up to 1, e.g. 0.001")
    elif isinstance(value, bool) or not isinstance(value, int) or not _LEAST[name] <= value <= LARGEST:
        raise BadRequest(f"{name}={value}: a whole number from {_LEAST[name]} to {LARGEST:,}")


def of(recipe: Recipe) -> Recovery | None:
    """How a recipe recovers; None when it does not.

    Args:
        recipe: Resolved or not; of a joint one, its last part decides.
    """
    args = options(dict((recipe.then or recipe).options))
    if not args:
        return None
    return Recovery(
        kind=str(args["recover"]),
        tokens=int(args["recover_tokens"]),
        seed=int(args["recover_seed"]),
        rate=float(args["recover_rate"]),
        rank=int(args.get("recover_rank", 0)),
        text=str(args.get("recover_text", "")),
    )


def without(recipe: Recipe) -> Recipe:
    """The same recipe with nothing recovered.

    Args:
        recipe: Resolved or not.
    """
    rest = tuple((name, value) for name, value in recipe.options if not _is_ours(name))
    return replace(recipe, options=rest, then=without(recipe.then) if recipe.then else None)


def refuse_inside(recipe: Recipe) -> None:
    """Refuse a joint recipe whose first part recovers.

    Args:
        recipe: As parsed.

    Raises:
        BadRequest: It does; the message shows how to write it.
    """
    if recipe.then and any(_is_ours(name) for name, _ in recipe.options):
        raise BadRequest(
            f"{recipe.text}: recovery comes last, so write it after the last part, e.g. "
            f"{without(recipe).text},recover=lora"
        )
