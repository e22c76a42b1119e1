"""What the words mean: a line for every term that a reader may not know, where it stands and in one list."""

from __future__ import annotations

import re

import streamlit as st

from kick_core.explorer.safe import Safe, escaped, many, show, tag

TERMS = {
    "dense": "The model as it was, nothing compressed: what every recipe is compared with.",
    "recipe": "A method of compression and its target, such as wanda at 50 % sparsity or gptq in 4 bits.",
    "sparsity": "The share of weights that are set to zero.",
    "N:M": "Of every M neighbouring weights N are kept, such as 2:4: hardware can use that.",
    "bits per weight": "Size of the compressed linears, divided by their weights; dense has 16. "
    "A pruned weight costs 16 if kept and one to say where, a quantized one its code and its share of a scale.",
    "perplexity": "How surprised a model is by running text, exp of the mean loss per token; lower is better.",
    "closed book": "The answer must come out of the weights: nothing in the prompt tells it.",
    "open book": "The answer stands in the prompt and has to be found there.",
    "gold": "The answer that counts as right; several that do are separated by ·.",
    "share kept": "The compressed model's score as a part of the dense one's; perplexity the other way round.",
    "matching": "The interval of the share kept lies above 95 %: not worse than that, with 95 % confidence.",
    "at chance": "No better than blind guessing (of four options, 25 %): there is no knowledge that could be lost.",
    "pocket": "The fictional world of the two small models that were trained for this project.",
    "official": "Benchmarks that others published, and facts about the real world that come with this program.",
    "strict": "The protocol that judges every answer by a fixed rule.",
    "paper": "The protocol with prompts and scoring as in LLM-KICK's own code.",
    "greedy": "The likeliest token is taken at every step, so the same model answers the same way each time.",
    "95 % interval": "Where the true value lies, as far as these examples can tell.",
    "paired": "Dense and compressed are compared on the very same examples.",
    "p": "How likely a difference at least as large would be if the two models were equally good.",
    "pp": "Percentage points: from 34 % to 16 % are 18.",
    "Holm": "A correction for testing many recipes at once: verdicts that hold together are stricter than each alone.",
    "passages": "Questions on one passage are no independent evidence; intervals and tests count passages (clusters).",
    "power": "How often a true difference of this size would be found with this many examples.",
    "flips": "Answers that were right and are wrong now, or the other way round.",
    "broke": "Right under dense (or A), wrong now.",
    "breaks at": "The mildest step of the method at which an answer turns from right to wrong.",
    "calibration": "The text that some methods look at to decide which weights matter.",
    "KL": "How far the compressed model's probabilities for the next token are from dense's, in nats; 0 is equal.",
    "nats": "The unit of surprise with natural logarithms; 1 nat is 1.44 bits.",
    "noise floor": "How many answers change when dense itself is asked twice, in other batches: less is no difference.",
    "4-gram repetition": "The share of four-word sequences in an answer that it has said before.",
}
AMBIGUOUS = frozenset({"paper", "calibration", "pocket", "official"})
"""Words that also stand for something else in sentences: explained only where `term` is called."""
SPELLINGS = {
    "share of the dense score": "share kept", "share of dense": "share kept", "kept of dense": "share kept",
    "4-grams": "4-gram repetition", "95 % paired intervals": "95 % interval", "95 % intervals": "95 % interval",
    "95 % CI": "95 % interval", "recipes": "recipe", "sparsities": "sparsity", "clusters": "passages",
    "closed-book": "closed book", "open-book": "open book", "by guessing": "at chance", "chance": "at chance",
}  # fmt: skip
"""Other ways to write a term -> the term."""

_ENTRIES = {word: word for word in TERMS if word not in AMBIGUOUS} | SPELLINGS
_LOWER = {word.lower(): entry for word, entry in _ENTRIES.items()}
_ANY = re.compile(
    r"(?<![\w-])(" + "|".join(map(re.escape, sorted(_ENTRIES, key=len, reverse=True))) + r")(?![\w-])", re.IGNORECASE
)


def term(word: str, key: str = "") -> Safe:
    """A word with its meaning on hover, by tap or focus; `key` is its entry where the word is another."""
    return tag("abbr", word, title=TERMS[key or word], tabindex="0")


def explained(text: Safe | str) -> Safe:
    """A sentence of this program, every term in it explained on hover the first time; elements stay as they are.

    A tap focuses a term and style.css shows its meaning; Tab passes it by, for a page has dozens: the glossary has all.

    Never for texts of a model or a data set: a word in those is theirs.
    """
    if isinstance(text, Safe):
        return text
    parts: list[Safe] = []
    known: set[str] = set()
    end = 0
    for match in _ANY.finditer(text):
        entry = _LOWER[match[0].lower()]
        if entry not in known:
            known.add(entry)
            parts += [escaped(text[end : match.start()]), tag("abbr", match[0], title=TERMS[entry], tabindex="-1")]
            end = match.end()
    return many([*parts, escaped(text[end:])])


def button() -> None:
    """All terms, behind a button."""
    with st.popover("Glossary", icon=":material/menu_book:"):
        entries = (part for word, meaning in TERMS.items() for part in (tag("dt", word), tag("dd", meaning)))
        show(tag("dl", *entries, cls="glossary"))
