"""What may be asked: targets, recipes, models and calibrations, as frozen values with one text form.

Everything that a user can type, put into a URL or read off a plot is parsed here and nowhere else, so the
same words mean the same thing in the command line, the pages, the cards and the keys. Standard library only:
planning a sweep or drawing a page must never wait for torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from kick_core.errors import BadRequest, nearest

Option = bool | int | float | str
LARGEST = (1 << 31) - 1
"""Of whole numbers in recipes: no size or seed needs more, and everything can hold it."""


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Unstructured sparsity: drop a share of every matrix's weights, wherever they are.

    Args:
        ratio: the share to drop, in [0, 1). Exactly floor(n * ratio) of n weights are dropped.
    """

    ratio: float

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise BadRequest(
                f"sparsity ratio {self.ratio!r} is outside [0, 1): give the share of weights to drop, e.g. 0.5"
            )

    @property
    def text(self) -> str:
        return f"{self.ratio:.12g}"

    @property
    def sparsity(self) -> float:
        return self.ratio

    def count(self, n: int) -> int:
        """How many of `n` weights are dropped: floor(n * ratio), on the decimal that was written.

        Binary floating point would make 0.29 of 100 twenty-eight.
        """
        return int(n * Fraction(self.text))


@dataclass(frozen=True, slots=True)
class KeepNofM:
    """N:M sparsity: keep N of every M consecutive inputs of a row.

    Args:
        keep: N.
        out_of: M.
    """

    keep: int
    out_of: int

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.out_of:
            raise BadRequest(
                f"pattern {self.text!r} keeps {self.keep} of every {self.out_of} weights: "
                f"N must be from 1 to M (2:4 keeps two of every four)"
            )

    @property
    def text(self) -> str:
        return f"{self.keep}:{self.out_of}"

    @property
    def sparsity(self) -> float:
        return 1 - self.keep / self.out_of


@dataclass(frozen=True, slots=True)
class IntGrid:
    """Quantization to a grid of integers.

    Args:
        bits: 2 to 8.
        group: consecutive inputs that share a scale; -1 is one scale per row, None the method's default.
        symmetric: whether the grid is centred on 0, without a zero point.
    """

    bits: int
    group: int | None = None
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise BadRequest(f"{self.bits} bits are outside 2..8: write e.g. rtn@4bit")
        if self.group is not None and self.group != -1 and not 1 <= self.group <= LARGEST:
            raise BadRequest(f"group size {str(self.group)[:40]} is neither in 1..{LARGEST} nor -1 (one scale per row)")

    @property
    def text(self) -> str:
        return f"{self.bits}bit"

    @property
    def sparsity(self) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class BitBudget:
    """What a weight may take in the mean over all matrices, where every matrix may be compressed in another way."""

    bits: float

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise BadRequest(f"a budget of {self.bits:.12g} bits a weight is outside 1..32: write e.g. mix@4.5bpw")

    @property
    def text(self) -> str:
        return f"{self.bits:.12g}bpw"

    @property
    def sparsity(self) -> float:
        return 0.0


Target = Unstructured | KeepNofM | IntGrid | BitBudget

_RATIO = re.compile(r"-?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_PATTERN = re.compile(r"(\d{1,4}):(\d{1,4})", re.ASCII)
_BITS = re.compile(r"(\d{1,3})bits?", re.ASCII)
_BUDGET = re.compile(r"(\d{1,2}(\.\d{1,6})?)bpw", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _target(text: str) -> Target:
    if match := _PATTERN.fullmatch(text):
        return KeepNofM(int(match[1]), int(match[2]))
    if match := _BITS.fullmatch(text):
        return IntGrid(int(match[1]))
    if match := _BUDGET.fullmatch(text):
        return BitBudget(float(match[1]))
    if _RATIO.fullmatch(text):
        return Unstructured(float(text))
    raise BadRequest(
        f"target {text!r} is not understood: write a ratio (0.5), a pattern (2:4) or bits (4bit) after '@'"
    )


def _option(text: str) -> tuple[str, Option]:
    name, equals, value = text.partition("=")
    if not equals and ("@" in text or text == "dense"):
        raise BadRequest(f"{text!r} behind a comma is no option: put spaces between recipes, e.g. dense wanda@0.5")
    if not equals or not _NAME.fullmatch(name) or not value:
        raise BadRequest(f"option {text!r} is not understood: write name=value, e.g. group=64")
    if value in ("true", "false"):
        return name, value == "true"
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    return name, value


def _written(value: Option) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to compress a model. Its text form, e.g. `gptq@4bit,group=64`, is the same everywhere.

    Missing options take the method's defaults when the recipe is resolved (`kick_core.methods.resolve`); only
    resolved recipes are hashed.

    Args:
        method: a method's name, or `dense`.
        target: the sparsity or number format to reach; None for `dense` only.
        options: names and values, sorted by name.
        then: quantizes what was pruned, in one joint recipe that keeps the mask.
    """

    method: str
    target: Target | None = None
    options: tuple[tuple[str, Option], ...] = ()
    then: Recipe | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(sorted(self.options)))
        if self.then and not (
            isinstance(self.target, Unstructured | KeepNofM)
            and isinstance(self.then.target, IntGrid)
            and self.then.then is None
        ):
            raise BadRequest(f"joint recipe {self.text!r}: first a sparsity, then bits, e.g. sparsegpt@2:4+gptq@4bit")
        if self.method == "dense" and (self.target or self.options):
            raise BadRequest("'dense' is the uncompressed model: it takes no target and no options")
        if self.method != "dense" and self.target is None:
            raise BadRequest(f"recipe {self.method!r} says no target: write {self.method}@0.5, @2:4 or @4bit")

    @property
    def text(self) -> str:
        """The text form, without loss: `parse(recipe.text) == recipe`."""
        if self.target is None:
            return self.method
        words = [f"{self.method}@{self.target.text}"]
        if isinstance(self.target, IntGrid):
            if self.target.group is not None:
                words.append(f"group={self.target.group}")
            if not self.target.symmetric:
                words.append(f"sym={_written(self.target.symmetric)}")
        words += [f"{name}={_written(value)}" for name, value in self.options]
        return ",".join(words) + (f"+{self.then.text}" if self.then else "")

    def __str__(self) -> str:
        return self.text


DENSE = Recipe("dense")


def parse(text: str | Recipe) -> Recipe:
    """Read a recipe's text form: `dense`, `wanda@0.5`, `sparsegpt@2:4`, `gptq@4bit,group=64,sym=false`.

    Raises BadRequest that names the faulty word. Whether the method exists and takes the target is
    `kick_core.methods.resolve`'s business.
    """
    if isinstance(text, Recipe):
        return text
    # a mixture's choices may be joint recipes themselves
    first, *rest = [text.strip()] if text.strip().startswith("mix@") else text.strip().split("+")
    if rest:
        then = parse("+".join(rest))
        alone = parse(first)
        return Recipe(alone.method, alone.target, alone.options, then)
    head, *words = first.split(",")
    method, at, goal = head.partition("@")
    if not _NAME.fullmatch(method):
        raise BadRequest(f"recipe {text!r} is not understood: write method@target, e.g. wanda@0.5")
    if at and not goal:
        raise BadRequest(f"recipe {text!r} ends at '@': write a ratio, a pattern or bits after it")
    target = _target(goal) if at else None
    options = dict(_option(word) for word in words)
    if isinstance(target, IntGrid):
        target = IntGrid(target.bits, _group(options.pop("group", None)), _flag(options.pop("sym", True)))
    return Recipe(method, target, tuple(options.items()))


def _group(value: Option | None) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise BadRequest(f"group={_written(value)} is not a whole number: write e.g. group=64")
    return value


def _flag(value: Option) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"sym={_written(value)} is neither true nor false")
    return value


DTYPES = ("auto", "float32", "bfloat16", "float16")
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
BOS = ("auto", "always")
Bos = Literal["auto", "always"]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as the user names it. Its identity in keys is the hash of its files.

    Args:
        name: `pocket`, `pocket-4m`, a folder in hub layout or a hub id.
        revision: of a hub model.
        dtype: `auto` (the model's own), `float32`, `bfloat16` or `float16`.
        bos: `auto` (texts begin as the tokenizer begins them) or `always` (with its beginning-of-sequence token, also
            where it names one but does not add it).
    """

    name: str
    revision: str | None = None
    dtype: Dtype = "auto"
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise nearest(self.dtype, DTYPES, "dtype")
        if self.bos not in BOS:
            raise nearest(self.bos, BOS, "bos")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Which token windows the data-aware methods look at.

    Args:
        source: `pocket`, `pocket-unasked`, `english`, a hub text (`c4`, `wikitext2`) or a file. `auto` is the text that
            suits the model: `pocket` for the pocket models, `english` for every other one.
        windows: how many; None takes 128, or as many as a shorter text gives.
        length: tokens per window; None is the model's context, at most 2048.
        seed: of the sample of windows.
        propagate: which activations the next block sees: those of the compressed blocks before it (the papers'
            sequential procedure) or those of the dense model.
        min_tokens: a matrix that fewer tokens reach (an expert that is seldom chosen) is compressed as if no data were
            there, on a flat Hessian.

    Raises:
        BadRequest: a number below what makes sense, or an unknown propagation.
    """

    source: str = "auto"
    windows: int | None = None
    length: int | None = None
    seed: int = 0
    propagate: Literal["compressed", "dense"] = "compressed"
    min_tokens: int = 1

    def __post_init__(self) -> None:
        if self.min_tokens < 1:
            raise BadRequest(f"min_tokens {self.min_tokens}: at least 1 token makes statistics")
        if self.windows is not None and self.windows < 1:
            raise BadRequest(f"{self.windows} calibration windows: at least 1 is needed")
        if self.length is not None and self.length < 2:
            raise BadRequest(f"calibration windows of {self.length} tokens: at least 2 are needed")
        if self.propagate not in ("compressed", "dense"):
            raise nearest(self.propagate, ("compressed", "dense"), "propagation")

    @property
    def most_windows(self) -> int:
        """The number of windows, where the text is long enough."""
        return USUAL_WINDOWS if self.windows is None else self.windows


USUAL_WINDOWS = 128
"""Calibration windows of the papers (SparseGPT, Wanda, GPTQ), taken where nothing else is said."""
