"""What the words mean: a line for every term that a reader may not know, where it stands and in one list."""

from __future__ import annotations

import streamlit as st

from kick_core.explorer.safe import Safe, show, tag

TERMS = {
    "dense": "The model as it was, nothing compressed: what every recipe is compared with.",
    "recipe": "A method of compression and its target, such as wanda at 50 % sparsity or gptq in 4 bits.",
    "sparsity": "The share of weights that are set to zero.",
    "N:M": "Of every M neighbouring weights N are kept, such as 2:4: hardware can use that.",
    "perplexity": "How surprised a model is by running text, exp of the mean loss per token; lower is better.",
    "closed book": "The answer must come out of the weights: nothing in the prompt tells it.",
    "open book": "The answer stands in the prompt and has to be found there.",
    "share kept": "The compressed model's score as a part of the dense one's; perplexity the other way round.",
    "matching": "The interval of the share kept lies above 95 %: not worse than that, with 95 % confidence.",
    "strict": "The protocol that judges every answer by a fixed rule.",
    "paper": "The protocol with prompts and scoring as in LLM-KICK's own code.",
    "95 % interval": "Where the true value lies, as far as these examples can tell.",
    "paired": "Dense and compressed are compared on the very same examples.",
    "calibration": "The text that some methods look at to decide which weights matter.",
    "KL": "How far the compressed model's probabilities for the next token are from dense's, in nats; 0 is equal.",
    "4-gram repetition": "The share of four-word sequences in an answer that it has said before.",
}


def term(word: str, key: str = "") -> Safe:
    """A word with its meaning on hover and for screen readers; `key` is its entry where the word is another."""
    return tag("abbr", word, title=TERMS[key or word], tabindex="0")


def button() -> None:
    """All terms, behind a button."""
    with st.popover("Glossary", icon=":material/menu_book:"):
        entries = (part for word, meaning in TERMS.items() for part in (tag("dt", word), tag("dd", meaning)))
        show(tag("dl", *entries, cls="glossary"))
