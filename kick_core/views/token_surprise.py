"""Which tokens of running text a compressed model finds more surprising than dense does: why perplexity moves little.

Perplexity is a mean over all tokens, and most of them follow from grammar. The log-probability of every token, by
dense and by a variant, is among what `--fidelity` keeps (`store.fidelity`), so nothing is stored twice. What the tokens
say is read off the model's tokenizer, without torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kick_core import stats
from kick_core.models import source
from kick_core.records import RunCard
from kick_core.store import Store
from kick_core.store import fidelity as kept
from kick_core.views import load
from kick_core.views.matrices import places

Floats = NDArray[np.float64]

NAMES, NUMBERS, GRAMMAR, WORDS, MARKS = KINDS = ("names", "numbers", "grammar", "other words", "punctuation")
"""Kinds of tokens, told by how they are written."""

_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
_BEGINS = re.compile(r"(?:^|[.!?>\n][\"“”‘’(]*)\s*$")
_COMMON = (
    "a about above after again against all also although am among an and any are as at be because been before being "
    "below between both but by can could did do does doing down during each either even ever every few for from "
    "further had has have having he her here hers him his how however i if in into is it its itself just may me might "
    "more most must my near neither no nor not now of off often on once one only or other our out over own per rather "
    "same shall she should since so some such than that the their them then there these they this those though through "
    "thus to too under until up upon us very was we were what when where whether which while who whom whose why will "
    "with within without would yet you your"
)
_GRAMMAR = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a window: its text, its kind, and its log-probability (nats) by dense and by the variant."""

    text: str
    kind: str
    dense: float
    variant: float

    @property
    def growth(self) -> float:
        """By how many nats the token became more surprising."""
        return self.dense - self.variant


@dataclass(frozen=True, slots=True)
class _Windows:
    """Windows by their example's id: texts and kinds of all tokens, log-probabilities of all but the first."""

    texts: dict[str, list[str]]
    kinds: dict[str, list[str]]
    before: dict[str, Floats]
    after: dict[str, Floats]


def window_tokens(store: Store, run_key: str, dense_key: str, example: str) -> list[Token] | None:
    """The predicted tokens of one window.

    Args:
        store: the cache.
        run_key: the variant's perplexity run.
        dense_key: dense's run of the same windows.
        example: the window's id.

    Returns:
        Its tokens but the first; None where they were not read one by one (`--fidelity`). Every text is "" where the
        model's tokenizer is not on this machine.
    """
    found = _windows(store, run_key, dense_key)
    if found is None or example not in found.before:
        return None
    parts = (found.texts[example][1:], found.kinds[example][1:], found.before[example], found.after[example])
    return [Token(text, kind, float(old), float(new)) for text, kind, old, new in zip(*parts, strict=True)]


def surprise_by_kind(store: Store, run_key: str, dense_key: str) -> pd.DataFrame:
    """Surprise by kind of token, over all windows that both models were read on.

    Args:
        store: the cache.
        run_key: the variant's perplexity run.
        dense_key: dense's run of the same windows.

    Returns:
        One row per kind that occurs: kind, n (tokens), tokens (their share of all), before and after (mean surprise in
        nats), growth with growth_low and growth_high (mean per token, 95 % interval over windows), carried (share of
        the whole growth; nan where the whole did not grow). Empty where nothing is known.
    """
    found = _windows(store, run_key, dense_key)
    rows = _rows(_table(found)) if found else []
    names = ["kind", "n", "tokens", "before", "after", "growth", "growth_low", "growth_high", "carried"]
    return pd.DataFrame(rows, columns=names)


def _table(found: _Windows) -> pd.DataFrame:
    """One row per token whose log-probabilities are finite."""
    parts = [
        pd.DataFrame({"window": at, "kind": found.kinds[name][1:], "before": -found.before[name],
                      "after": -found.after[name]})
        for at, name in enumerate(found.before)
    ]  # fmt: skip
    table = pd.concat(parts)
    table["growth"] = table["after"] - table["before"]
    return table[np.isfinite(table["growth"])]


def _rows(table: pd.DataFrame) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    total = float(table["growth"].sum())
    for kind in KINDS:
        mine = table[table["kind"] == kind]
        if len(mine):
            windows = mine.groupby("window")["growth"].agg(["sum", "size"])
            growth = stats.ratio_of_sums(windows["sum"], windows["size"])
            carried = float(mine["growth"].sum()) / total if total > 0 else np.nan
            rows.append((
                kind, len(mine), len(mine) / len(table), mine["before"].mean(), mine["after"].mean(), growth.value,
                growth.low, growth.high, carried,
            ))  # fmt: skip
    return rows


# --- what was kept -------------------------------------------------------------------------------------------


def _windows(store: Store, run_key: str, dense_key: str) -> _Windows | None:
    run, dense = load.one(store, run_key).card, load.one(store, dense_key).card
    variant, base = _card(store, run, kept.parts), _card(store, dense, kept.tops)
    if variant is None or base is None:
        return None
    files = (*kept.parts(store, variant.key), *kept.tops(store, base.key))
    return _read(store, variant.key, base.key, run.examples, run.model, files)


@lru_cache(maxsize=8)
def _read(store: Store, variant: str, base: str, data: str, model: str, files: tuple[Path, ...]) -> _Windows | None:
    """Read once: what was kept never changes under its files' names."""
    decode, found = _decoder(model), _Windows({}, {}, {}, {})
    for example, old, new in zip(
        load.examples(store, data).values(), _dense(store, base), _variant(store, variant), strict=False
    ):
        if not len(old) == len(new) == len(example.meta.get("ids", ())) - 1:
            return None  # read in other windows than the run's
        texts = pieces(decode, example.meta["ids"]) if decode else [""] * (len(old) + 1)
        found.texts[example.id], found.kinds[example.id] = texts, kinds(texts)
        found.before[example.id], found.after[example.id] = old, new
    return found


def _card(store: Store, run: RunCard, parts: Callable[[Store, str], list[Path]]) -> RunCard | None:
    """What was kept of the very weights of a run on its windows."""
    asked = (run.weights, run.task, run.examples)
    return next(
        (
            card
            for card in kept.cards(store)
            if (card.weights, card.task, card.examples) == asked and parts(store, card.key)
        ),
        None,
    )


def _variant(store: Store, key: str) -> list[Floats]:
    table = kept.positions(store, key)
    window, values = table["window"].to_numpy(), table["logprob"].to_numpy().astype(float)
    return [values[start:end] for start, end in _runs(window)]


def _runs(window: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Where each window begins and ends; its positions stand together."""
    starts = [0, *(np.flatnonzero(np.diff(window)) + 1).tolist()]
    return list(zip(starts, [*starts[1:], len(window)], strict=True))


def _dense(store: Store, key: str) -> list[Floats]:
    return [row.astype(float) for path in kept.tops(store, key) for row in places(path)["tokens"].rows()]


# --- tokens as text ------------------------------------------------------------------------------------------


def _decoder(model: str) -> Callable[[Sequence[int]], str] | None:
    folder = source.local(load.asked_name(model))
    path = folder / "tokenizer.json" if folder else None
    if path is None or not path.is_file():
        return None
    return _tokenizer(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _tokenizer(path: Path, changed: int) -> Callable[[Sequence[int]], str]:
    from tokenizers import Tokenizer  # here: most pages never need it

    tokenizer = Tokenizer.from_file(str(path))
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False))


def pieces(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """What every token adds to the text. Of a character that several tokens spell, the last one has it all."""
    found, start, read = [], 0, 0
    for end in range(1, len(ids) + 1):
        before, text = decode(ids[start:read]), decode(ids[start:end])
        if text.endswith("\ufffd") and end - read < 8:
            found.append("")
            continue
        found.append(text[len(before) :])
        start, read = read, end
    return found


def kinds(texts: Sequence[str]) -> list[str]:
    """The kind of every token, by the word that it is a part of.

    A name is a capitalised word inside a sentence; a capital that begins a sentence says nothing, unless the word is
    written with it inside one elsewhere in the text.
    """
    whole = "".join(texts)
    words = [(found.start(), found.end(), found.group()) for found in _WORD.finditer(whole)]
    inside = {word for start, _, word in words if word[0].isupper() and not _BEGINS.search(whole[:start][-4:])}
    kind_at = np.full(len(whole) + 1, MARKS, dtype=object)
    for start, end, word in words:
        kind_at[start:end] = _kind(word, word in inside)
    found, at = [], 0
    for text in texts:
        first = at + len(text) - len(text.lstrip())
        found.append(str(kind_at[min(first, len(whole))]) if text.strip() else MARKS)
        at += len(text)
    return found


def _kind(word: str, inside: bool) -> str:
    if any(letter.isdigit() for letter in word):
        return NUMBERS
    if word.lower().partition("'")[0].partition("’")[0] in _GRAMMAR:
        return GRAMMAR
    return NAMES if inside else WORDS
